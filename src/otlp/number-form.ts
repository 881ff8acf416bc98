/** Bytes of numbers. */
export const zero = 0x30
export const nine = 0x39
export const minus = 0x2d
export const plus = 0x2b
export const dot = 0x2e

/** Whether a number of JSON, and nothing else, stands from `start` to `end` (RFC 8259, 6). */
export function isNumber(bytes: Buffer, start: number, end: number): boolean {
  let at = start
  if (at < end && bytes[at] === minus) at++
  const whole = at
  at = digitsEnd(bytes, at, end)
  if (at === whole || (bytes[whole] === zero && at - whole > 1)) return false
  if (at < end && bytes[at] === dot) {
    const fraction = ++at
    at = digitsEnd(bytes, at, end)
    if (at === fraction) return false
  }
  if (at < end && ((bytes[at] as number) | 0x20) === 0x65) {
    at++
    if (at < end && (bytes[at] === minus || bytes[at] === plus)) at++
    const exponent = at
    at = digitsEnd(bytes, at, end)
    if (at === exponent) return false
  }
  return at === end
}

function digitsEnd(bytes: Buffer, at: number, end: number): number {
  while (at < end && (bytes[at] as number) >= zero && (bytes[at] as number) <= nine) at++
  return at
}

/** Numbers of so many digits, and powers of ten up to 10^22, are exact as doubles, so that one division rounds once. */
const exactDigitsMax = 15

/**
 * The double of the plain decimal from `start` to `end`, such as `12.5`, rounded right; NaN where it has an exponent, too many
 * digits, or is none, which has to be seen elsewhere.
 */
export function plainDouble(bytes: Buffer, start: number, end: number): number {
  let at = start
  const negative = bytes[at] === minus
  if (negative) at++
  // A number has no zero before other digits, and a digit on both sides of its point.
  if (end - at > exactDigitsMax || at === end) return Number.NaN
  if (bytes[at] === zero && end - at > 1 && bytes[at + 1] !== dot) return Number.NaN
  let value = 0
  let scale = 0
  for (const first = at; at < end; at++) {
    const byte = bytes[at] as number
    if (byte >= zero && byte <= nine) {
      value = value * 10 + byte - zero
      scale *= 10
    } else if (byte === dot && scale === 0 && at !== first && at + 1 !== end) scale = 1
    else return Number.NaN
  }
  if (scale > 1) value /= scale
  return negative ? -value : value
}
