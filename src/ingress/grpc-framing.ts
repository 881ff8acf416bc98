import { OtlpError } from '../otlp/error.ts'

/** What stands before a message: a byte that says whether it is compressed, and its length in four. */
export const PREFIX_BYTES = 5

/** The one message of a unary call, as it came. */
export interface Unframed {
  readonly compressed: boolean
  readonly message: Buffer
}

/** A message with its prefix, uncompressed ("gRPC over HTTP2", Length-Prefixed-Message). */
export function frame(message: Buffer): Buffer {
  const framed = Buffer.allocUnsafe(PREFIX_BYTES + message.length)
  framed[0] = 0
  framed.writeUInt32BE(message.length, 1)
  message.copy(framed, PREFIX_BYTES)
  return framed
}

/** How many bytes a call with one message has, as its prefix says; undefined while the prefix is not whole. */
export function declaredCallBytes(start: Buffer): number | undefined {
  return start.length < PREFIX_BYTES ? undefined : PREFIX_BYTES + start.readUInt32BE(1)
}

/**
 * Takes the prefix off the whole body of a unary call ("gRPC over HTTP2", Length-Prefixed-Message).
 *
 * @throws {OtlpError} when that is not exactly one message.
 */
export function unframe(body: Buffer): Unframed {
  if (body.length === 0) throw new OtlpError('the call has no message; an export is exactly one')
  const declaredBytes = declaredCallBytes(body)
  if (declaredBytes === undefined) {
    throw new OtlpError(`the call ends after ${body.length} of the ${PREFIX_BYTES} bytes before a message`)
  }
  if (body.length < declaredBytes) {
    const sent = body.length - PREFIX_BYTES
    throw new OtlpError(`the message is cut off: ${sent} of the ${declaredBytes - PREFIX_BYTES} bytes came`)
  }
  if (body.length > declaredBytes) {
    throw new OtlpError(
      `something follows the message of ${declaredBytes - PREFIX_BYTES} bytes; an export is exactly one`,
    )
  }
  const flag = body[0] as number
  if (flag > 1) throw new OtlpError(`the compressed flag of the message is ${flag}; 0 and 1 are known`)
  return { compressed: flag === 1, message: body.subarray(PREFIX_BYTES) }
}

/**
 * How the message of a call is compressed, by the flag before it and the call's `grpc-encoding`; undefined when it is not
 * ("gRPC over HTTP2", Compressed-Flag).
 *
 * @throws {OtlpError} when the flag says that it is and nothing says how.
 */
export function contentEncodingOf(
  { compressed }: Unframed,
  encoding: string | undefined,
): string | undefined {
  if (!compressed) return undefined
  if (encoding === undefined || /^\s*(?:identity)?\s*$/i.test(encoding)) {
    throw new OtlpError('the message is marked as compressed, but grpc-encoding does not say how')
  }
  return encoding
}

const messageBytesMax = 1000

/**
 * A sentence as `grpc-message` carries it: UTF-8, percent-encoded ("gRPC over HTTP2", Status-Message), and at most
 * 1,000 bytes long in that form: trailers that become too long are cut off by clients, and the status with them.
 */
export function encodeGrpcMessage(message: string): string {
  let encoded = ''
  for (const character of message.toWellFormed()) {
    const code = character.codePointAt(0) as number
    const plain = code >= 0x20 && code <= 0x7e && character !== '%'
    const next = plain ? character : percentEncode(character)
    if (encoded.length + next.length > messageBytesMax) break
    encoded += next
  }
  return encoded
}

function percentEncode(character: string): string {
  let encoded = ''
  for (const byte of Buffer.from(character)) encoded += `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
  return encoded
}

const timeoutUnitMs: Record<string, number> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 }

/**
 * The milliseconds that `grpc-timeout` leaves for a call ("gRPC over HTTP2", Timeout); without one, infinitely many.
 *
 * @throws {OtlpError} when it is not 1 to 8 digits and a unit.
 */
export function timeoutMsOf(header: string | undefined): number {
  if (header === undefined) return Number.POSITIVE_INFINITY
  const parts = /^(\d{1,8})([HMSmun])$/.exec(header)
  const unitMs = timeoutUnitMs[parts?.[2] ?? '']
  if (unitMs === undefined) {
    throw new OtlpError(
      `grpc-timeout is ${JSON.stringify(header.slice(0, 20))}; 1 to 8 digits and one of H, M, S, m, u, n belong there`,
    )
  }
  return Number(parts?.[1]) * unitMs
}
