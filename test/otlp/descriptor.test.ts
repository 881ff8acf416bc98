import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { expect, test } from 'vitest'
import { ensurePython } from '../../scripts/python.ts'
import { describeOtlp } from '../../src/otlp/descriptor.ts'
import type { Signal } from '../../src/otlp/signal.ts'

const everySignal: Signal[] = ['traces', 'metrics', 'logs', 'profiles']
const program = path.join(import.meta.dirname, 'compare_descriptors.py')

interface Comparison {
  compared: string[]
  missing: string[]
  beside: string[]
  different: Record<string, unknown>
}

async function compareWithPython(files: readonly Buffer[]): Promise<Comparison> {
  const python = spawn(await ensurePython(), ['-I', program], { stdio: ['pipe', 'pipe', 'pipe'] })
  const exited = once(python, 'close')
  const outputs = Promise.all([text(python.stdout), text(python.stderr)])
  // A program that ends early has said why on stderr.
  python.stdin.on('error', () => undefined).end(JSON.stringify(files.map((file) => file.toString('base64'))))
  const [[code], [output, errors]] = await Promise.all([exited, outputs])
  if (code !== 0) throw new Error(`compare_descriptors.py failed: ${errors.trim()}`)
  return JSON.parse(output) as Comparison
}

test('every message, field, enum and service is what opentelemetry-proto for Python says it is', async () => {
  const files = describeOtlp(everySignal)
  const { compared, ...differences } = await compareWithPython(files.map(({ bytes }) => bytes))
  expect(differences).toEqual({
    different: {},
    beside: [],
    // Bits of numbers, and what stands in files: nothing that a request has.
    missing: [
      'opentelemetry.proto.logs.v1.LogRecordFlags',
      'opentelemetry.proto.logs.v1.LogsData',
      'opentelemetry.proto.metrics.v1.DataPointFlags',
      'opentelemetry.proto.metrics.v1.MetricsData',
      'opentelemetry.proto.profiles.v1development.ProfilesData',
      'opentelemetry.proto.trace.v1.SpanFlags',
      'opentelemetry.proto.trace.v1.TracesData',
    ],
  })
  const symbols = files.flatMap(({ name, symbols: all }) => [name, ...all])
  // Methods are compared with their services.
  expect(compared).toEqual(symbols.filter((symbol) => !symbol.endsWith('.Export')).sort())
}, 240_000)

test('only the services of what is served are described, and every file that another builds on is there', () => {
  for (const served of [['logs'], ['traces', 'profiles'], everySignal] as Signal[][]) {
    const files = describeOtlp(served)
    expect(files.flatMap(({ services }) => services).length).toBe(served.length)
    const names = files.map(({ name }) => name)
    expect(new Set(names).size).toBe(names.length)
    for (const { dependencies } of files) expect(names).toEqual(expect.arrayContaining([...dependencies]))
  }
})
