import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import { expect, test } from 'vitest'

const program = `
  import { systemClock } from './src/foundation/clock.ts'
  import { createLogger } from './src/telemetry/log.ts'
  const log = createLogger({ level: 'info', clock: systemClock })
  for (let i = 0; i < 5000; i++) log.info('event_' + i, { padding: 'x'.repeat(100) })
  await log.close()
  process.exit(0)
`

const withStandardOutput = (stdout: 'pipe' | number) =>
  spawn(process.execPath, ['--input-type=module-typescript', '--eval', program], {
    stdio: ['ignore', stdout, 'inherit'],
  })

test('everything logged before close is on standard output when close has resolved, in order', async () => {
  const child = withStandardOutput('pipe')
  if (child.stdout === null) throw new Error('the child has no standard output')
  const [output, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')])
  const events = output
    .trimEnd()
    .split('\n')
    .map((line) => (JSON.parse(line) as { event: string }).event)
  expect({ code, events }).toEqual({ code: 0, events: Array.from({ length: 5000 }, (_, i) => `event_${i}`) })
})

test('a standard output that cannot be written to does not end the process', async () => {
  await using readOnly = await open(process.execPath, 'r')
  const [code] = await once(withStandardOutput(readOnly.fd), 'exit')
  expect(code).toBe(0)
})
