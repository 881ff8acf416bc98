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
  while (at < end && isDigit(bytes[at] as number)) at++
  return at
}

/** Whole numbers of so many digits, and powers of ten up to 10^22, are exact as doubles: what is made of two rounds once. */
const exactDigitsMax = 15
const exactPowers = Array.from({ length: 23 }, (_, power) => 10 ** power)

/**
 * The double of the number from `start` to `end`, rounded right, if it has at most 15 digits and a small exponent; NaN where
 * it has more, or is none, which has to be seen elsewhere.
 */
export function plainDouble(bytes: Buffer, start: number, end: number): number {
  let at = start
  const negative = bytes[at] === minus
  if (negative) at++
  const first = at
  // A number has no zero before other digits.
  if (bytes[at] === zero && end - at > 1 && isDigit(bytes[at + 1] as number)) return Number.NaN
  let value = 0
  for (; at < end && isDigit(bytes[at] as number); at++) value = value * 10 + (bytes[at] as number) - zero
  let digits = at - first
  if (digits === 0) return Number.NaN
  let exponent = 0
  if (at < end && bytes[at] === dot) {
    const fraction = ++at
    for (; at < end && isDigit(bytes[at] as number); at++) value = value * 10 + (bytes[at] as number) - zero
    exponent = fraction - at
    if (exponent === 0) return Number.NaN
    digits -= exponent
  }
  if (digits > exactDigitsMax) return Number.NaN
  if (at < end && ((bytes[at] as number) | 0x20) === 0x65) {
    at++
    const down = bytes[at] === minus
    if (down || bytes[at] === plus) at++
    const power = at
    let written = 0
    for (; at < end && isDigit(bytes[at] as number); at++)
      written = written * 10 + (bytes[at] as number) - zero
    if (at === power) return Number.NaN
    exponent += down ? -written : written
  }
  if (at !== end || exponent > 22 || exponent < -22) return Number.NaN
  if (exponent > 0) value *= exactPowers[exponent] as number
  else if (exponent < 0) value /= exactPowers[-exponent] as number
  return negative ? -value : value
}

/** Up to so many characters a text is put together faster than by a call out of JavaScript. */
const shortCharacters = 8

/** The text from `start` to `end`, which is ASCII. */
export function asciiText(bytes: Buffer, start: number, end: number): string {
  if (end - start > shortCharacters) return bytes.toString('latin1', start, end)
  let text = ''
  for (let at = start; at < end; at++) text += String.fromCharCode(bytes[at] as number)
  return text
}

function isDigit(byte: number): boolean {
  return byte >= zero && byte <= nine
}
