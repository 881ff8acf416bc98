import { freeMemory } from '../foundation/memory.ts'
import type { Format } from './answer.ts'
import { protobufFromJson } from './json-to-protobuf.ts'
import type { Signal } from './signal.ts'
import { encodeSummary } from './summary.ts'
import { walk } from './walk.ts'

/** A request as it can be staged, with all that is ever to be known of it without decoding it again. */
export interface ReadRequest {
  /** In protobuf. */
  readonly body: Buffer
  /** Whether `body` is what was read; it is not where that was JSON or had strings to repair. */
  readonly asItCame: boolean
  /** Spans, data points, log records or profiles. */
  readonly items: number
  /** As `encodeSummary` writes it. */
  readonly summary: Buffer
  readonly repairedStrings: number
}

/**
 * Reads an unpacked request: JSON becomes protobuf (OTLP specification, "JSON Protobuf Encoding"), and protobuf is walked
 * to the bottom. It never pauses; a megabyte takes 2 to 12 ms, and 33 ms at the worst.
 *
 * @throws {OtlpError} naming the field, for what OTLP does not allow.
 */
export function readRequest(signal: Signal, format: Format, bytes: Buffer): ReadRequest {
  const protobuf = format === 'json' ? protobufFromJson(signal, bytes) : bytes
  const { body, items, summary, repairedStrings } = walk(signal, protobuf)
  if (body !== protobuf && protobuf !== bytes) freeMemory(protobuf)
  return { body, asItCame: body === bytes, items, summary: encodeSummary(summary), repairedStrings }
}
