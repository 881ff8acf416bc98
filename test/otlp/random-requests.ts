import fc from 'fast-check'
import protobuf from 'protobufjs'
import {
  type Field,
  itemMessages,
  type Message,
  messages,
  requestMessages,
  unstableMessages,
} from '../../src/otlp/schema.ts'
import type { Signal } from '../../src/otlp/signal.ts'

/** An object of OTLP JSON, as a client would write it. */
export interface JsonObject {
  [name: string]: JsonValue
}
export type JsonValue = string | number | boolean | JsonObject | JsonValue[]

/** Any request of a signal that nests at most `depth` messages, without empty lists, which protobuf cannot tell from none. */
export function requests(signal: Signal, depth = 8): fc.Arbitrary<JsonObject> {
  return messageOf(requestMessages[signal], depth)
}

function messageOf(message: Message, depth: number): fc.Arbitrary<JsonObject> {
  const fields = message.fields.filter((field) => field.kind !== 'message' || depth > 0)
  const members = fc.record(
    Object.fromEntries(fields.map((field) => [field.jsonName, fieldOf(field, depth)])),
    { requiredKeys: [] },
  )
  return members.map((object) => withoutRivals(message, object))
}

/** Of each oneof only the first field. */
function withoutRivals(message: Message, object: Record<string, JsonValue | undefined>): JsonObject {
  const taken = new Set<string>()
  const kept: JsonObject = {}
  for (const field of message.fields) {
    const value = object[field.jsonName]
    if (value === undefined) continue
    if (field.oneof !== undefined && taken.has(field.oneof)) continue
    if (field.oneof !== undefined) taken.add(field.oneof)
    kept[field.jsonName] = value
  }
  return kept
}

function fieldOf(field: Field, depth: number): fc.Arbitrary<JsonValue> {
  const one = valueFor(field, depth)
  return field.repeated ? fc.array(one, { minLength: 1, maxLength: 2 }) : one
}

const text = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  fc.string({ unit: 'binary' }),
  fc.string({ minLength: 120, maxLength: 140 }),
)
const int64 = (min: bigint, max: bigint): fc.Arbitrary<string> =>
  fc.oneof(fc.bigInt({ min, max }), fc.bigInt({ min: min < 0n ? -200n : 0n, max: 200n })).map(String)
const bytes = (length: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((array) => Buffer.from(array))

function valueFor(field: Field, depth: number): fc.Arbitrary<JsonValue> {
  switch (field.kind) {
    case 'message':
      return messageOf(field.message, depth - 1)
    case 'enum':
      return fc.oneof(fc.nat(field.values.size), fc.integer())
    case 'int32':
    case 'sint32':
      return fc.oneof(fc.integer(), fc.integer({ min: -200, max: 200 }))
    case 'uint32':
    case 'fixed32':
      return fc.oneof(fc.nat(200), fc.integer({ min: 0, max: 2 ** 32 - 1 }))
    case 'int64':
    case 'sfixed64':
      return int64(-(2n ** 63n), 2n ** 63n - 1n)
    case 'uint64':
    case 'fixed64':
      return int64(0n, 2n ** 64n - 1n)
    case 'bool':
      return fc.boolean()
    case 'double':
      return fc.double().map((value) => (Number.isFinite(value) ? value + 0 : String(value)))
    case 'string':
      return text
    case 'bytes':
      return fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array).toString('base64'))
    case 'traceId':
      return fc.oneof(
        fc.constant(''),
        bytes(16).map((id) => id.toString('hex')),
      )
    case 'spanId':
      return fc.oneof(
        fc.constant(''),
        bytes(8).map((id) => id.toString('hex')),
      )
  }
}

/** How many items the request has, counted in the JSON. */
export function itemsOf(message: Message, object: JsonObject): number {
  let items = itemMessages.has(message) ? 1 : 0
  for (const field of message.fields) {
    if (field.kind !== 'message') continue
    for (const value of [object[field.jsonName] ?? []].flat())
      items += itemsOf(field.message, value as JsonObject)
  }
  return items
}

/**
 * The schema in protobufjs, which encodes and decodes it with code that is not ours. As proto2, where a zero is
 * something else than nothing; the bytes are the same.
 */
const root = rootOf([...messages.values()])
/** protobufjs reads groups wrong in a message that has no field at all. */
const unused: Field = {
  number: 18_999,
  name: 'unused',
  jsonName: 'unused',
  repeated: false,
  oneof: undefined,
  kind: 'int32',
}
/** The same without the fields that still change between releases. */
const outlineRoot = rootOf(
  [...messages.values()].map((message) =>
    unstableMessages.has(message) ? { ...message, fields: [unused] } : message,
  ),
)

function rootOf(known: readonly Message[]): protobuf.Root {
  const source = `syntax = "proto2"; ${known.map(messageSource).join(' ')}`
  return protobuf.parse(source, new protobuf.Root(), { keepCase: true }).root
}

function messageSource(message: Message): string {
  const fields = message.fields.map(
    (field) =>
      `${field.repeated ? 'repeated' : 'optional'} ${typeName(field)} ${field.jsonName} = ${field.number};`,
  )
  return `message ${typeNamed(message)} { ${fields.join(' ')} }`
}

/** Not by their own names: protobufjs generates code in which `Function` and `Link` mean something. */
function typeNamed(message: Message): string {
  return `Otlp${message.name}`
}

function typeName(field: Field): string {
  switch (field.kind) {
    case 'message':
      return typeNamed(field.message)
    case 'enum':
      return 'int32'
    case 'traceId':
    case 'spanId':
      return 'bytes'
    default:
      return field.kind
  }
}

/** Decodes with protobufjs; throws where it does. */
export function decodeElsewhere(signal: Signal, body: Buffer): unknown {
  return root.lookupType(typeNamed(requestMessages[signal])).decode(body)
}

/** Decodes a request of profiles with protobufjs as far as OTLP is stable; throws where it does. */
export function decodeOutlineElsewhere(body: Buffer): unknown {
  return outlineRoot.lookupType(typeNamed(requestMessages.profiles)).decode(body)
}

/** Encodes with protobufjs what OTLP JSON says. */
export function encodeElsewhere(signal: Signal, object: JsonObject): Buffer {
  const message = requestMessages[signal]
  const type = root.lookupType(typeNamed(message))
  return Buffer.from(type.encode(type.fromObject(withBytes(message, object))).finish())
}

/** The object with its ids and bytes as protobufjs wants them. */
function withBytes(message: Message, object: JsonObject): Record<string, unknown> {
  const result: Record<string, unknown> = {}
  for (const field of message.fields) {
    const value = object[field.jsonName]
    if (value === undefined) continue
    const convert = (one: JsonValue): unknown => {
      if (field.kind === 'message') return withBytes(field.message, one as JsonObject)
      if (field.kind === 'traceId' || field.kind === 'spanId') return Buffer.from(one as string, 'hex')
      if (field.kind === 'bytes') return Buffer.from(one as string, 'base64')
      if (field.kind === 'double') return Number(one)
      return one
    }
    result[field.jsonName] = Array.isArray(value) ? value.map(convert) : convert(value)
  }
  return result
}
