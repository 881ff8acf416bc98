import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { costlyRequests } from './costly-requests.ts'

/** No request of 1 MB may hold the event loop for longer. */
const holdMsMax = 50

test('no request of 1 MB, however costly, holds the event loop for 50 ms', { timeout: 120_000 }, async () => {
  for (const { body } of costlyRequests) {
    expect(body.length).toBeGreaterThan(1024 * 1024 - 4096)
    expect(body.length).toBeLessThanOrEqual(1024 * 1024)
  }
  const { stdout } = await promisify(execFile)(process.execPath, [
    path.join(import.meta.dirname, 'hold-times.ts'),
  ])
  const holds = Object.entries(JSON.parse(stdout) as Record<string, number>)
  expect(holds.length).toBe(costlyRequests.length)
  expect(holds.filter(([, ms]) => ms >= holdMsMax)).toEqual([])
})
