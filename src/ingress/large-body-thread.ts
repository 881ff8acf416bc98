import { move, transferableSymbol, valueSymbol } from 'piscina'
import { freeMemory } from '../foundation/memory.ts'
import type { Format } from '../otlp/answer.ts'
import { OtlpError, type OtlpRule } from '../otlp/error.ts'
import { type ReadRequest, readRequest } from '../otlp/read-request.ts'
import type { Signal } from '../otlp/signal.ts'

/** What the thread is asked. `bytes` has its memory to itself, which is moved there. */
export interface LargeBodyTask {
  readonly signal: Signal
  readonly format: Format
  readonly bytes: Uint8Array
}

/**
 * What the thread answers: the request as it was read, the memory of its body moved back. Or why it is refused: an error would
 * arrive without its class.
 */
export type LargeBodyAnswer =
  | (Omit<ReadRequest, 'body' | 'summary'> & { readonly body: Uint8Array; readonly summary: Uint8Array })
  | { readonly refused: string; readonly rule: OtlpRule }

/** Reads a body in this thread. */
export default function readLargeBody({ signal, format, bytes }: LargeBodyTask): unknown {
  const asked = Buffer.from(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength)
  try {
    const read = readRequest(signal, format, asked)
    if (!read.asItCame) freeMemory(asked)
    const body = withMemoryOfItsOwn(read.body)
    const answer: LargeBodyAnswer = { ...read, body, summary: Uint8Array.from(read.summary) }
    return move({ [transferableSymbol]: [body.buffer as ArrayBuffer], [valueSymbol]: answer })
  } catch (thrown) {
    freeMemory(asked)
    if (!(thrown instanceof OtlpError)) throw thrown
    return { refused: thrown.message, rule: thrown.rule } satisfies LargeBodyAnswer
  }
}

/** Short buffers share theirs with others. */
function withMemoryOfItsOwn(bytes: Buffer): Uint8Array {
  return bytes.byteLength > Buffer.poolSize ? bytes : Uint8Array.from(bytes)
}
