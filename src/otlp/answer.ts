import { type Signal, signals } from './signal.ts'
import { bytesField, varintField, varintLength, writeVarint } from './wire.ts'

/** The two encodings of OTLP/HTTP; a request is answered in its own. */
export type Format = 'protobuf' | 'json'

/** What was not taken of a request, in items of its signal, and why. */
export interface PartialSuccess {
  rejected: number
  message: string
}

const messageBytesMax = 1024

/**
 * The body of an `Export…ServiceResponse` (OTLP, "Full Success" and "Partial Success"). Without `partial` it is that of a
 * full success: no bytes, or `{}`. A message is cut to 1,024 bytes.
 */
export function exportResponse(signal: Signal, format: Format, partial?: PartialSuccess): Buffer {
  if (partial === undefined) return format === 'json' ? Buffer.from('{}') : Buffer.alloc(0)
  const message = shortText(partial.message)
  if (format === 'json') {
    const { rejectedField } = signals[signal]
    return json({
      partialSuccess: { [rejectedField]: String(partial.rejected), errorMessage: message.toString() },
    })
  }
  const inner = numberAndText(partial.rejected, message)
  const body = Buffer.allocUnsafe(1 + varintLength(inner.length) + inner.length)
  body[0] = 0x0a
  body.set(inner, writeVarint(body, 1, inner.length))
  return body
}

/**
 * The body of an error: `google.rpc.Status` with a code of google.rpc.Code and a message, which is made well-formed
 * and cut to 1,024 bytes, because long ones break the trailers of gRPC.
 */
export function statusBody(format: Format, code: number, message: string): Buffer {
  const text = shortText(message)
  return format === 'json' ? json({ code, message: text.toString() }) : numberAndText(code, text)
}

/** `google.rpc.RetryInfo` with a delay of whole seconds (googleapis, google/rpc/error_details.proto). */
export function retryInfo(delaySeconds: number): Buffer {
  return bytesField(1, varintField(1, delaySeconds))
}

/** The error of `statusBody` in protobuf with a RetryInfo among its details. */
export function statusWithRetryInfo(code: number, message: string, delaySeconds: number): Buffer {
  const type = bytesField(1, 'type.googleapis.com/google.rpc.RetryInfo')
  const detail = Buffer.concat([type, bytesField(2, retryInfo(delaySeconds))])
  return Buffer.concat([statusBody('protobuf', code, message), bytesField(3, detail)])
}

/** A message with a number in field 1 and a text in field 2, as both Status and every partial success are. */
function numberAndText(number: number, text: Buffer): Buffer {
  const body = Buffer.allocUnsafe(2 + varintLength(number) + varintLength(text.length) + text.length)
  body[0] = 0x08
  let at = writeVarint(body, 1, number)
  body[at++] = 0x12
  at = writeVarint(body, at, text.length)
  body.set(text, at)
  return body
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value))
}

/** The text in UTF-8, cut before the character that would pass the limit. */
function shortText(text: string): Buffer {
  const bytes = Buffer.from(text.slice(0, messageBytesMax + 1).toWellFormed())
  if (bytes.length <= messageBytesMax) return bytes
  let end = messageBytesMax
  while (((bytes[end] as number) & 0xc0) === 0x80) end--
  return bytes.subarray(0, end)
}
