import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { ensurePython } from '../../scripts/python.ts'
import type { Destination } from './js-sdk.ts'
import { type ExpectedSample, expectedSample, type SampleIds, someTime } from './sample.ts'

const largest = '9223372036854775807'

/** How the SDK for Python sends. */
export interface PythonSdkOptions {
  transport: 'http' | 'grpc'
  compression: 'gzip' | 'none'
  to: Destination
  service: string
  /** The exporters' own deadline; theirs is 10 s. */
  timeoutSeconds?: number | undefined
}

/** How its exports ended. */
export interface PythonOutcome {
  /** `SUCCESS` or `FAILURE`, in the order in which the exports ended. */
  results: string[]
  /** What the SDK logged about itself from WARNING up. */
  said: string[]
}

/** Sends the sample, one export a signal, and says what must be found in the store. */
export async function sendPythonSample(
  options: PythonSdkOptions,
): Promise<PythonOutcome & { sent: ExpectedSample }> {
  const { ids, ...outcome } = (await run({ act: 'sample', ...options })) as PythonOutcome & { ids: SampleIds }
  const { traceId, parentId } = ids
  const [traceIdBytes, parentIdBytes] = [traceId, parentId].map((id) => Buffer.from(id, 'hex'))
  const exemplar = {
    traceId: traceIdBytes?.toString('base64'),
    spanId: parentIdBytes?.toString('base64'),
    timeUnixNano: someTime,
    asInt: largest,
  }
  const sent = expectedSample({
    service: options.service,
    ids,
    wholeNumbers: [
      { key: 'smallest', value: { intValue: '-9223372036854775808' } },
      { key: 'largest', value: { intValue: largest } },
    ],
    numbers: { arrayValue: { values: [{ intValue: '1' }, { intValue: '4611686018427387904' }] } },
    spanFlags: 256,
    logFlags: 3,
    buckets: {
      positive: { offset: -1, bucketCounts: ['1', '1', '1', '0'] },
      negative: { bucketCounts: ['0'] },
    },
    counter: { asInt: largest, exemplars: [exemplar] },
    gaugeStarts: false,
  })
  return { ...outcome, sent }
}

/** Sends spans named `0`, `1`, …, one an export, each begun so long after the last. */
export async function sendPythonExports(
  options: PythonSdkOptions & { exports: number; intervalSeconds: number },
): Promise<PythonOutcome> {
  return (await run({ act: 'exports', ...options })) as PythonOutcome
}

/** How a call of OTLP/gRPC was refused, as Python's `grpc_status` reads it; seconds are those of a RetryInfo. */
export interface PythonRefusal {
  code: string
  message: string
  /** What is in `grpc-status-details-bin`: each detail by its type. */
  status: { code: number; message: string; details: [type: string, seconds: number][] } | null
  /** What is in the trailer `google.rpc.retryinfo-bin`. */
  retryInfoSeconds: number | null
}

/** Sends a span that Sluice is known to refuse, with a name so long. */
export async function askPythonForStatus(target: string, nameLength: number): Promise<PythonRefusal> {
  return (await runPython('python_status.py', { target, nameLength })) as PythonRefusal
}

async function run({ to, ...task }: PythonSdkOptions & { act: string }): Promise<unknown> {
  const endpoint = task.transport === 'http' ? to.url : `http://${to.grpcTarget}`
  return await runPython('python_sdk.py', { ...task, endpoint })
}

async function runPython(script: string, task: object): Promise<unknown> {
  const words = ['-I', path.join(import.meta.dirname, script)]
  const python = spawn(await ensurePython(), words, { stdio: ['pipe', 'pipe', 'pipe'] })
  const exited = once(python, 'close')
  const outputs = Promise.all([text(python.stdout), text(python.stderr)])
  // A program that ends early has said why on stderr.
  python.stdin.on('error', () => undefined).end(JSON.stringify(task))
  const [[code], [output, errors]] = await Promise.all([exited, outputs])
  if (code !== 0) throw new Error(`${script} failed: ${errors.trim()}`)
  return JSON.parse(output)
}
