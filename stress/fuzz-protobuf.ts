import { type Message, requestMessages, wireTypeOf } from '../src/otlp/schema.ts'
import type { Signal } from '../src/otlp/signal.ts'
import { fieldEnd, varint, varintEnd } from '../src/otlp/wire.ts'
import { damageBytes, strangeBytes } from './fuzz-bytes.ts'
import type { SeededRandom } from './seeded-random.ts'

/** A field of a request taken apart, so that it can be changed and what holds it stays right. */
interface FieldNode {
  number: number
  wireType: number
  /** Of a number its bytes, of everything else its content; unused where there are children. */
  content: Buffer
  children: FieldNode[] | undefined
  message: Message | undefined
  /** Bytes by which the varints are written longer than they need to be. */
  tagPadding: number
  lengthPadding: number
  /** What the length says too much. */
  lengthError: number
}

/** Takes a good request apart. */
function fieldsOf(message: Message | undefined, bytes: Buffer): FieldNode[] {
  const fields: FieldNode[] = []
  let at = 0
  while (at < bytes.length) {
    const tag = varint(bytes, at)
    const start = varintEnd(bytes, at)
    at = fieldEnd(bytes, start, tag)
    const number = Math.floor(tag / 8)
    const wireType = tag & 7
    const known = message?.fields.find((field) => field.number === number)
    const inner = known?.kind === 'message' && wireType === 2 ? known.message : undefined
    const content = bytes.subarray(wireType === 2 ? varintEnd(bytes, start) : start, at)
    fields.push({
      number,
      wireType,
      content,
      children: inner === undefined ? undefined : fieldsOf(inner, content),
      message: inner,
      tagPadding: 0,
      lengthPadding: 0,
      lengthError: 0,
    })
  }
  return fields
}

function written(fields: readonly FieldNode[], into: Buffer[] = []): Buffer[] {
  for (const field of fields) {
    into.push(varintBytes(field.number * 8 + field.wireType, field.tagPadding))
    if (field.wireType !== 2) {
      into.push(field.content)
      continue
    }
    const content = field.children === undefined ? [field.content] : written(field.children)
    const length = content.reduce((sum, part) => sum + part.length, 0)
    into.push(varintBytes(Math.max(0, length + field.lengthError), field.lengthPadding), ...content)
  }
  return into
}

/** A varint, written in `padding` bytes more than it needs. */
export function varintBytes(value: number | bigint, padding = 0): Buffer {
  const bytes: number[] = []
  if (typeof value === 'number') {
    for (; value >= 0x80; value = Math.floor(value / 0x80)) bytes.push((value % 0x80) | 0x80)
    bytes.push(value)
  } else {
    for (; value >= 0x80n; value >>= 7n) bytes.push(Number(value & 0x7fn) | 0x80)
    bytes.push(Number(value))
  }
  for (; padding > 0; padding--) {
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) | 0x80
    bytes.push(0)
  }
  return Buffer.from(bytes)
}

/** A field with its length. */
export function lengthField(number: number, ...content: Buffer[]): Buffer {
  const length = content.reduce((sum, part) => sum + part.length, 0)
  return Buffer.concat([varintBytes(number * 8 + 2), varintBytes(length), ...content])
}

/** Lists of fields: of the request, and of every message in it. */
function lists(fields: FieldNode[], into: FieldNode[][] = []): FieldNode[][] {
  into.push(fields)
  for (const field of fields) if (field.children !== undefined) lists(field.children, into)
  return into
}

/** A copy with all that is in it, or a field might come to stand in itself. */
function copyOf(field: FieldNode): FieldNode {
  return { ...field, children: field.children?.map(copyOf) }
}

type Change = (random: SeededRandom, list: FieldNode[], place: number, strangers: FieldNode[][]) => void

const changes: readonly [Change, ...Change[]] = [
  // Twice the same.
  (_, list, place) => void list.splice(place, 0, copyOf(list[place] as FieldNode)),
  // One less.
  (_, list, place) => void list.splice(place, 1),
  // Another order.
  (random, list, place) => {
    const [moved] = list.splice(place, 1)
    if (moved !== undefined) list.splice(random.between(0, list.length), 0, moved)
  },
  // A field of another place or request.
  (random, list, place, strangers) => {
    const from = strangers[random.between(0, strangers.length - 1)] ?? []
    const stranger = from[random.between(0, Math.max(0, from.length - 1))]
    if (stranger !== undefined) list.splice(place, random.between(0, 1), copyOf(stranger))
  },
  // Another number or wire type.
  (random, list, place) => change(list, place, { number: random.between(0, 40) }),
  (random, list, place) =>
    change(list, place, { number: random.pick([0, 15, 16, 1000, 2 ** 29 - 1, 2 ** 29]) }),
  (random, list, place) => change(list, place, { wireType: random.between(0, 7), children: undefined }),
  // Varints that are longer than they need to be.
  (random, list, place) => change(list, place, { tagPadding: random.between(1, 5) }),
  (random, list, place) => change(list, place, { lengthPadding: random.between(1, 5) }),
  // A length that is not true, here alone: what is around it counts right.
  (random, list, place) =>
    change(list, place, { lengthError: random.pick([-2, -1, 1, 2, 100, 2 ** 31, 2 ** 32 - 1]) }),
  // Another content.
  (random, list, place) => {
    const field = list[place] as FieldNode
    const content = field.children === undefined ? field.content : Buffer.concat(written(field.children))
    change(list, place, { content: damageBytes(random, content), children: undefined })
  },
  (random, list, place) => change(list, place, { content: random.pick(strangeBytes), children: undefined }),
  (random, list, place) =>
    change(list, place, { content: random.bytes(random.between(0, 20)), children: undefined }),
  (random, list, place) =>
    change(list, place, { content: numberBytes(random), wireType: 0, children: undefined }),
  // Something that nobody knows.
  (random, list, place) => void list.splice(place, 0, unknownField(random)),
  (random, list, place) => void list.splice(place, 0, group(random)),
]

function change(list: FieldNode[], place: number, what: Partial<FieldNode>): void {
  const field = list[place]
  if (field !== undefined) list[place] = { ...field, ...what }
}

function numberBytes(random: SeededRandom): Buffer {
  if (random.chance(0.2)) return Buffer.from('ffffffffffffffffff7f', 'hex')
  if (random.chance(0.1)) return Buffer.from('8080808080808080808000', 'hex')
  return varintBytes(
    random.pick([0n, 1n, 127n, 128n, 2n ** 31n, 2n ** 32n, 2n ** 63n, 2n ** 64n - 1n]),
    random.between(0, 2),
  )
}

function unknownField(random: SeededRandom): FieldNode {
  const wireType = random.pick([0, 1, 2, 5])
  const length = wireType === 1 ? 8 : wireType === 5 ? 4 : random.between(0, 30)
  const content = wireType === 0 ? numberBytes(random) : random.bytes(length)
  return rawField(random.between(20, 5000), wireType, content)
}

/** Groups in groups, each with something in it; now and then without an end, or with a wrong one. */
function group(random: SeededRandom): FieldNode {
  const depth = random.pick([1, 2, 5, 90, 95, 99, 100, 101])
  const number = random.pick([3, 19, 100])
  const parts: Buffer[] = []
  for (let level = 1; level < depth; level++) parts.push(varintBytes(number * 8 + 3))
  parts.push(lengthField(1, random.bytes(random.between(0, 5))))
  const ends = depth - (random.chance(0.1) ? 1 : 0)
  for (let level = 0; level < ends; level++) parts.push(varintBytes(number * 8 + 4))
  if (random.chance(0.05)) parts.push(varintBytes(21 * 8 + 4))
  return rawField(number, 3, Buffer.concat(parts))
}

function rawField(number: number, wireType: number, content: Buffer): FieldNode {
  return {
    number,
    wireType,
    content,
    children: undefined,
    message: undefined,
    tagPadding: 0,
    lengthPadding: 0,
    lengthError: 0,
  }
}

/** An attribute whose value is an array in an array, `depth` times. */
export function nestedAttribute(fieldNumber: number, depth: number, innermost: Buffer): Buffer {
  let value = innermost
  for (let level = 0; level < depth; level++) value = lengthField(5, lengthField(1, value))
  return lengthField(fieldNumber, lengthField(2, value))
}

/** A list that is to be nested: a field of the request, whatever it is, holds an attribute of arrays in arrays. */
function nest(random: SeededRandom, list: FieldNode[]): void {
  const depth = random.pick([10, 44, 45, 46, 47, 48, 49, 50, 51, 120])
  const innermost = random.chance(0.5) ? lengthField(1, Buffer.from([0xff])) : Buffer.from([0x18, 1])
  const number = random.pick([1, 2, 3, 6, 9])
  const nested = nestedAttribute(number, depth, innermost)
  list.splice(
    random.between(0, list.length),
    0,
    rawField(number, 2, nested.subarray(varintEnd(nested, varintEnd(nested, 0)))),
  )
}

/**
 * A good request with one to four changes to its fields, each of which leaves the lengths of what is around it right, so that
 * it reaches the depth at which it was made.
 */
export function changeFields(random: SeededRandom, signal: Signal, body: Buffer, stranger: Buffer): Buffer {
  const request = fieldsOf(requestMessages[signal], body)
  const strangers = lists(fieldsOf(requestMessages[signal], stranger))
  for (let left = random.between(1, 4); left > 0; left--) {
    const all = lists(request)
    const list = all[random.between(0, all.length - 1)] ?? request
    if (list.length === 0 || random.chance(0.05)) nest(random, list)
    else random.pick(changes)(random, list, random.between(0, list.length - 1), strangers)
  }
  return Buffer.concat(written(request))
}

/**
 * One field, chosen anywhere in the schema of a signal, as often as fits into `bytes`: the shape that costs the most of the
 * time of whoever reads it.
 */
export function floodOfFields(
  random: SeededRandom,
  signal: Signal,
  bytes: number,
): { body: Buffer; unit: Buffer } {
  const path: number[] = []
  let message = requestMessages[signal]
  for (let depth = random.between(0, 12); depth > 0; depth--) {
    const inner = message.fields.filter((field) => field.kind === 'message')
    const next = inner[random.between(0, Math.max(0, inner.length - 1))]
    if (next === undefined || next.kind !== 'message') break
    path.push(next.number)
    message = next.message
  }
  const unit = Buffer.concat(
    Array.from({ length: random.between(1, 2) }, () => smallField(random, message, 3)),
  )
  const shell = 6 * path.length
  let body: Buffer = Buffer.alloc(Math.max(1, Math.floor((bytes - shell) / unit.length)) * unit.length, unit)
  for (const number of path.toReversed()) body = lengthField(number, body)
  return { body, unit }
}

/** A short field of a message, good or nearly so. */
function smallField(random: SeededRandom, message: Message, depth: number): Buffer {
  if (random.chance(0.1) || message.fields.length === 0) return varintBytes(random.between(8, 400) * 8, 0)
  const field = message.fields[random.between(0, message.fields.length - 1)]
  if (field === undefined) return Buffer.of(0x98, 1, 0)
  const wireType = wireTypeOf(field)
  const tag = varintBytes(field.number * 8 + wireType, random.chance(0.05) ? random.between(1, 3) : 0)
  if (wireType === 0)
    return Buffer.concat([tag, random.chance(0.8) ? Buffer.of(random.between(0, 127)) : numberBytes(random)])
  if (wireType !== 2) return Buffer.concat([tag, random.bytes(wireType === 1 ? 8 : 4)])
  if (field.kind === 'message') {
    const content =
      depth === 0 || random.chance(0.3) ? Buffer.alloc(0) : smallField(random, field.message, depth - 1)
    return lengthField(field.number, content)
  }
  if (field.kind === 'traceId') return lengthField(field.number, random.bytes(16))
  if (field.kind === 'spanId') return lengthField(field.number, random.bytes(8))
  const text = random.pick<Buffer>([
    ...strangeBytes,
    Buffer.from('service.name'),
    random.bytes(1),
    Buffer.alloc(0),
  ])
  return lengthField(field.number, text)
}
