import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { ensurePython, hasPython } from '../../scripts/python.ts'
import type { Encoding, Signal } from '../../src/otlp/signal.ts'

export { hasPython }

export interface EncodedBytes {
  encoding: Encoding
  body: Buffer
}

/** An object as stored, with the requests that it should hold, in their order. */
export interface SentAndStored extends EncodedBytes {
  signal: Signal
  requests: EncodedBytes[]
}

const reader = path.join(import.meta.dirname, 'otlp_reader.py')
const profiles = path.join(import.meta.dirname, 'otlp_profiles.py')

/** Each object as the protobuf JSON of Python's `opentelemetry-proto` (ids in base64, 64-bit numbers as text). */
export async function decodeWithPython(
  objects: readonly (EncodedBytes & { signal: Signal })[],
): Promise<Record<string, unknown>[]> {
  const cases = objects.map(({ signal, ...bytes }) => ({ signal, ...onTheWire(bytes) }))
  return (await askPython({ act: 'decode', cases })) as Record<string, unknown>[]
}

/**
 * Compares objects with what was sent, both as Python's `opentelemetry-proto` reads them.
 *
 * @returns for each object null if it is exactly its requests, else a sentence that says what differs.
 */
export async function compareWithPython(objects: readonly SentAndStored[]): Promise<(string | null)[]> {
  const cases = objects.map(({ signal, requests, ...bytes }) => ({
    signal,
    ...onTheWire(bytes),
    requests: requests.map(onTheWire),
  }))
  return (await askPython({ act: 'compare', cases })) as (string | null)[]
}

/** What a profiler saw: stacks from the outermost function in, with the time spent in each. */
export interface Profiled {
  service: string
  binary: string
  samples: [frames: string[], nanoseconds: number][]
}

/** What each profiler saw as a request with a dictionary of its own, made by Python's `opentelemetry-proto`, also as OTLP JSON. */
export async function makeProfiles(seen: readonly Profiled[]): Promise<{ body: Buffer; json: object }[]> {
  const made = await askPython({ act: 'make', cases: seen }, profiles)
  return (made as { body: string; json: object }[]).map(({ body, json }) => ({
    body: Buffer.from(body, 'base64'),
    json,
  }))
}

/** What Python finds in each object by way of its dictionary, profile for profile. */
export async function readProfiles(objects: readonly EncodedBytes[]): Promise<Profiled[][]> {
  return (await askPython({ act: 'read', cases: objects.map(onTheWire) }, profiles)) as Profiled[][]
}

function onTheWire({ encoding, body }: EncodedBytes) {
  return { encoding, body: body.toString('base64') }
}

async function askPython(task: object, program = reader): Promise<unknown> {
  const python = spawn(await ensurePython(), ['-I', program], { stdio: ['pipe', 'pipe', 'pipe'] })
  const exited = once(python, 'close')
  const outputs = Promise.all([text(python.stdout), text(python.stderr)])
  // A program that ends early has said why on stderr.
  python.stdin.on('error', () => undefined).end(JSON.stringify(task))
  const [[code], [output, errors]] = await Promise.all([exited, outputs])
  if (code !== 0) throw new Error(`${path.basename(program)} failed: ${errors.trim()}`)
  return JSON.parse(output)
}
