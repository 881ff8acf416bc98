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

function onTheWire({ encoding, body }: EncodedBytes) {
  return { encoding, body: body.toString('base64') }
}

async function askPython(task: object): Promise<unknown> {
  const python = spawn(await ensurePython(), ['-I', reader], { stdio: ['pipe', 'pipe', 'pipe'] })
  const exited = once(python, 'close')
  const outputs = Promise.all([text(python.stdout), text(python.stderr)])
  // A program that ends early has said why on stderr.
  python.stdin.on('error', () => undefined).end(JSON.stringify(task))
  const [[code], [output, errors]] = await Promise.all([exited, outputs])
  if (code !== 0) throw new Error(`${path.basename(reader)} failed: ${errors.trim()}`)
  return JSON.parse(output)
}
