import { isUtf8 } from 'node:buffer'

/** Below this many bytes a loop is faster than a call out of JavaScript. */
const nativeBytesMin = 64

/** Whether the bytes from `start` to `end` are UTF-8. */
export function validUtf8(bytes: Buffer, start: number, end: number): boolean {
  if (end - start >= nativeBytesMin) return isUtf8(bytes.subarray(start, end))
  let at = start
  while (at < end) {
    const size = characterSize(bytes, at, end)
    if (size < 0) return false
    at += size
  }
  return true
}

/**
 * The bytes of the character that starts at `at`, or minus the bytes of the maximal bad part there
 * (Encoding standard, UTF-8 decoder; Unicode 3.9, "U+FFFD substitution of maximal subparts").
 */
export function characterSize(bytes: Buffer, at: number, end: number): number {
  const lead = bytes[at] as number
  if (lead < 0x80) return 1
  if (lead < 0xc2 || lead > 0xf4) return -1
  const size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4
  // The second byte alone shows overlong forms, surrogates and what lies beyond U+10FFFF.
  const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80
  const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf
  for (let i = 1; i < size; i++) {
    const byte = at + i < end ? (bytes[at + i] as number) : 0
    if (i === 1 ? byte < low || byte > high : (byte & 0xc0) !== 0x80) return -i
  }
  return size
}
