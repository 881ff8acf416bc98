/**
 * The varint that starts at `at`, as a number: exact up to 2^53, which tags and lengths never reach. Bytes that have not
 * passed the walk give a wrong answer, but always one: so with all functions here.
 */
export function varint(bytes: Buffer, at: number): number {
  let value = 0
  let scale = 1
  // No varint has more than ten bytes; in what goes on for longer the scale would become infinite, and the value NaN.
  for (const end = at + 10; at < end; at++) {
    const byte = bytes[at] as number
    value += (byte & 0x7f) * scale
    if (!(byte >= 0x80)) return value
    scale *= 0x80
  }
  return value
}

/** Where the varint that starts at `at` ends. */
export function varintEnd(bytes: Buffer, at: number): number {
  while ((bytes[at++] as number) >= 0x80);
  return at
}

/** The bytes that `value` takes as a varint. */
export function varintLength(value: number): number {
  let length = 1
  while (value >= 0x80) {
    value = Math.floor(value / 0x80)
    length++
  }
  return length
}

/** Writes `value` as a varint and answers where it ends. */
export function writeVarint(bytes: Uint8Array, at: number, value: number): number {
  while (value >= 0x80) {
    bytes[at++] = (value & 0x7f) | 0x80
    value = Math.floor(value / 0x80)
  }
  bytes[at++] = value
  return at
}

/** A field whose value is bytes: a text, a message or a packed list. For what is written once in a while. */
export function bytesField(fieldNumber: number, content: Buffer | string): Buffer {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content
  return Buffer.concat([varintBytes(fieldNumber * 8 + 2), varintBytes(bytes.length), bytes])
}

/** A field whose value is a number that is not negative. */
export function varintField(fieldNumber: number, value: number): Buffer {
  return Buffer.concat([varintBytes(fieldNumber * 8), varintBytes(value)])
}

function varintBytes(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(varintLength(value))
  writeVarint(bytes, 0, value)
  return bytes
}

/** Where the field ends whose tag ends at `at`; of a group, after its end. */
export function fieldEnd(bytes: Buffer, at: number, tag: number): number {
  let openGroups = 0
  for (;;) {
    switch (tag & 7) {
      case 0:
        at = varintEnd(bytes, at)
        break
      case 1:
        at += 8
        break
      case 2:
        at = varintEnd(bytes, at) + varint(bytes, at)
        break
      case 3:
        openGroups++
        break
      case 4:
        openGroups--
        break
      default:
        at += 4
    }
    if (openGroups === 0 || !(at < bytes.length)) return at
    tag = varint(bytes, at)
    at = varintEnd(bytes, at)
  }
}

/**
 * The value of the last field `fieldNumber` of a small message whose value is bytes; undefined when there is none. Of a
 * message that is cut off or no protobuf it answers what it can.
 */
export function bytesOfField(message: Buffer, fieldNumber: number): Buffer | undefined {
  let found: Buffer | undefined
  let at = 0
  while (at < message.length) {
    const tag = varint(message, at)
    const start = varintEnd(message, at)
    at = fieldEnd(message, start, tag)
    if (tag === fieldNumber * 8 + 2) found = message.subarray(varintEnd(message, start), at)
  }
  return found
}
