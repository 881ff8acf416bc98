import { OtlpError } from './error.ts'
import { type Field, type Message, requestMessages, wireTypeOf } from './schema.ts'
import type { Signal } from './signal.ts'
import { walk } from './walk.ts'
import { fieldEnd, varint, varintEnd } from './wire.ts'

/**
 * An export request in OTLP JSON, on one line (OTLP, "JSON Protobuf Encoding"): ids in lower-case hex, 64-bit numbers as
 * strings, enums as numbers, other bytes in base64. Fields come in the order of their numbers; what is not in the
 * bytes is not in the JSON; unknown fields are left out. `body` may be several requests one after the other: as in
 * protobuf, lists are joined and messages merged.
 *
 * Not for the way of a request: it decodes everything.
 *
 * @throws {OtlpError} for bytes that are no request of the signal.
 */
export function jsonFromProtobuf(signal: Signal, body: Buffer): string {
  const walked = walk(signal, body)
  try {
    return messageText(requestMessages[signal], walked.body)
  } catch (error) {
    // Of profiles of another release the walk sees only the outline: what is below may be cut off, or too deep.
    if (signal !== 'profiles' || !(error instanceof RangeError)) throw error
    throw new OtlpError(`not an export request of ${signal} as this release knows them`)
  }
}

function messageText(message: Message, bytes: Buffer): string {
  const found = collect(message, bytes)
  const members: string[] = []
  for (const field of message.fields) {
    const values = found.get(field)
    if (values !== undefined) members.push(`"${field.jsonName}":${fieldText(field, values)}`)
  }
  return `{${members.join(',')}}`
}

/** The values of each field that the bytes have, still encoded: of a list all, of a oneof only the last field. */
function collect(message: Message, bytes: Buffer): Map<Field, Buffer[]> {
  const found = new Map<Field, Buffer[]>()
  let at = 0
  while (at < bytes.length) {
    const tag = varint(bytes, at)
    const start = varintEnd(bytes, at)
    at = fieldEnd(bytes, start, tag)
    const field = message.fields.find(({ number }) => number === tag >>> 3)
    const wireType = tag & 7
    const packed = wireType === 2 && field?.repeated
    if (field === undefined || (wireType !== wireTypeOf(field) && !packed)) continue
    if (field.oneof !== undefined) {
      for (const other of found.keys()) {
        if (other !== field && other.oneof === field.oneof) found.delete(other)
      }
    }
    const values = found.get(field) ?? []
    found.set(field, values)
    if (wireType !== 2) values.push(bytes.subarray(start, at))
    else if (wireTypeOf(field) === 2) values.push(bytes.subarray(varintEnd(bytes, start), at))
    else values.push(...unpacked(field, bytes.subarray(varintEnd(bytes, start), at)))
  }
  return found
}

function unpacked(field: Field, bytes: Buffer): Buffer[] {
  const values: Buffer[] = []
  let at = 0
  while (at < bytes.length) {
    const end = fieldEnd(bytes, at, wireTypeOf(field))
    values.push(bytes.subarray(at, end))
    at = end
  }
  return values
}

function fieldText(field: Field, values: Buffer[]): string {
  if (field.repeated) return `[${values.map((value) => valueText(field, value)).join(',')}]`
  if (field.kind === 'message') return messageText(field.message, Buffer.concat(values))
  return valueText(field, values.at(-1) as Buffer)
}

function valueText(field: Field, value: Buffer): string {
  switch (field.kind) {
    case 'message':
      return messageText(field.message, value)
    case 'string':
      return JSON.stringify(value.toString())
    case 'bytes':
      return `"${value.toString('base64')}"`
    case 'traceId':
    case 'spanId':
      return `"${value.toString('hex')}"`
    case 'bool':
      return varint64(value) === 0n ? 'false' : 'true'
    case 'int32':
    case 'enum':
      return String(BigInt.asIntN(32, varint64(value)))
    case 'uint32':
      return String(BigInt.asUintN(32, varint64(value)))
    case 'sint32': {
      const folded = Number(BigInt.asUintN(32, varint64(value)))
      return String((folded >>> 1) ^ -(folded & 1))
    }
    case 'int64':
      return `"${BigInt.asIntN(64, varint64(value))}"`
    case 'uint64':
      return `"${varint64(value)}"`
    case 'fixed32':
      return String(value.readUInt32LE(0))
    case 'fixed64':
      return `"${value.readBigUInt64LE(0)}"`
    case 'sfixed64':
      return `"${value.readBigInt64LE(0)}"`
    case 'double':
      return doubleText(value.readDoubleLE(0))
  }
}

function varint64(bytes: Buffer): bigint {
  let value = 0n
  for (const [index, byte] of bytes.entries()) value |= BigInt(byte & 0x7f) << BigInt(7 * index)
  return BigInt.asUintN(64, value)
}

function doubleText(value: number): string {
  if (!Number.isFinite(value)) return `"${value}"`
  return Object.is(value, -0) ? '-0' : String(value)
}
