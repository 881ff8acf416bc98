/** Longest message of an OtlpError in characters: gRPC clients lose the status when their trailers grow past 8 kB. */
export const messageCharactersMax = 1000
const quotedCharactersMax = 80

/**
 * Which rule a refused request broke. Other decoders hold to `form` and, in different measure, `depth`, too; the others
 * are OTLP's or ours:
 * - `form`: it is not in the format that it says.
 * - `wire_type`: a known field has a value of another kind.
 * - `id_length`: a trace or span id has another length than its own or none.
 * - `depth`: it nests more messages than the decoders of C++, Java and Python take.
 * - `number_size`: a varint has more than 64 bits, which Go refuses and C++ and Python cut off.
 */
export type OtlpRule = 'form' | 'wire_type' | 'id_length' | 'depth' | 'number_size'

/**
 * A request that OTLP does not allow: the sender is at fault and a retry of the same bytes fails again.
 * The message names the field, the value and the rule, and has at most 1,000 characters.
 */
export class OtlpError extends Error {
  readonly rule: OtlpRule

  constructor(message: string, rule: OtlpRule = 'form') {
    super(message.length > messageCharactersMax ? `${message.slice(0, messageCharactersMax - 1)}…` : message)
    this.name = 'OtlpError'
    this.rule = rule
  }
}

/** A value as it may stand in a message: in quotes, control characters escaped, cut to 80 characters. */
export function quoted(value: string): string {
  const escaped = JSON.stringify(value.slice(0, quotedCharactersMax + 1).toWellFormed())
  if (value.length <= quotedCharactersMax && escaped.length <= quotedCharactersMax + 2) return escaped
  return `${escaped.slice(0, quotedCharactersMax)}…"`
}

/** A path of field names as it may stand in a message: the middle of a deep one is left out. */
export function shortPath(path: string): string {
  return path.length <= 240 ? path : `${path.slice(0, 120)}…${path.slice(-119)}`
}
