/** Protobuf written by hand, so that tests can write it wrong, too. */

export function varint(value: number | bigint): Buffer {
  let left = BigInt.asUintN(64, BigInt(value))
  const bytes: number[] = []
  while (left >= 0x80n) {
    bytes.push(Number(left & 0x7fn) | 0x80)
    left >>= 7n
  }
  bytes.push(Number(left))
  return Buffer.from(bytes)
}

/** A varint written in more bytes than it needs. */
export function paddedVarint(value: number, length: number): Buffer {
  const bytes = Buffer.alloc(length, 0x80)
  const written = varint(value)
  for (const [index, byte] of written.entries()) bytes[index] = byte | 0x80
  bytes[length - 1] = (bytes[length - 1] ?? 0) & 0x7f
  return bytes
}

export function tag(number: number, wireType: number): Buffer {
  return varint(number * 8 + wireType)
}

/** A field with a length: text, bytes, or a message of its fields. */
export function field(number: number, ...content: (string | Buffer)[]): Buffer {
  const value = Buffer.concat(content.map((part) => (typeof part === 'string' ? Buffer.from(part) : part)))
  return Buffer.concat([tag(number, 2), varint(value.length), value])
}

export function number(fieldNumber: number, value: number | bigint): Buffer {
  return Buffer.concat([tag(fieldNumber, 0), varint(value)])
}

export function fixed64(fieldNumber: number, value: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return Buffer.concat([tag(fieldNumber, 1), bytes])
}

export function fixed32(fieldNumber: number, value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return Buffer.concat([tag(fieldNumber, 5), bytes])
}

/** An attribute in field `fieldNumber` with an encoded AnyValue. */
export function attribute(fieldNumber: number, key: string | Buffer, value: Buffer): Buffer {
  return field(fieldNumber, field(1, key), field(2, value))
}

/** A resource, as field 1 of ResourceSpans and the like, whose service.name is `name`. */
export function resource(name: string | Buffer): Buffer {
  return field(1, attribute(1, 'service.name', field(1, name)))
}

/** A trace request with one span of these fields. */
export function spanRequest(...fields: Buffer[]): Buffer {
  return field(1, field(2, field(2, ...fields)))
}

/** A metrics request with one metric, whose field `kind` holds one data point of these fields. */
export function pointRequest(kind: number, ...fields: Buffer[]): Buffer {
  return field(1, field(2, field(2, field(1, 'm'), field(kind, field(1, ...fields)))))
}

/** A logs request with one record of these fields. */
export function logRequest(...fields: Buffer[]): Buffer {
  return field(1, field(2, field(2, ...fields)))
}

/** An AnyValue: the number 1 in `depth` arrays. */
export function nestedArrays(depth: number): Buffer {
  let value = number(3, 1)
  for (let i = 0; i < depth; i++) value = field(5, field(1, value))
  return value
}
