import { dot, isNumber, minus, nine, plainDouble, plus, zero } from './number-form.ts'

/** A whole number that was read from its text: its amount as halves of 64 bits, and its sign. */
export interface Integer {
  negative: boolean
  high: number
  low: number
}

/** What can be wrong with the text of a whole number. */
export type IntegerFault = 'no number' | 'no whole number' | 'too large' | 'too long'

const digitsMax = 20
/** Longer texts are not looked at. */
const charactersMax = 100
/** Powers of ten by which a half may be multiplied and stay exact as a double. */
const powers = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000]
/** An exponent beyond it says nothing more: the text has no digits to make up for it. */
const exponentMax = 1_000_000

/**
 * Reads the JSON number that stands from `start` to `end` into `into`, exactly, if it is a whole number whose amount fits
 * 64 bits: `1e3` and `1.0` are whole. Answers undefined, or what is wrong; then `into` says nothing.
 */
export function readInteger(
  bytes: Buffer,
  start: number,
  end: number,
  into: Integer,
): IntegerFault | undefined {
  let at = start
  const negative = bytes[at] === minus
  if (negative) at++
  const digits = end - at
  if (digits < 1 || digits > digitsMax || (bytes[at] === zero && digits > 1))
    return readAnyForm(bytes, start, end, into)

  // Most numbers are short; of a list of them each takes a third of the time this way.
  if (digits <= 9) {
    let amount = 0
    for (; at < end; at++) {
      const digit = (bytes[at] as number) - zero
      if (digit < 0 || digit > 9) return readAnyForm(bytes, start, end, into)
      amount = amount * 10 + digit
    }
    into.negative = negative
    into.high = 0
    into.low = amount
    return undefined
  }

  // Both parts are exact as doubles: at most 11 digits and 9 digits.
  const split = end - 9
  let upper = 0
  let lower = 0
  for (; at < split; at++) {
    const digit = (bytes[at] as number) - zero
    if (digit < 0 || digit > 9) return readAnyForm(bytes, start, end, into)
    upper = upper * 10 + digit
  }
  for (; at < end; at++) {
    const digit = (bytes[at] as number) - zero
    if (digit < 0 || digit > 9) return readAnyForm(bytes, start, end, into)
    lower = lower * 10 + digit
  }
  // The low half is exact modulo 2^32; with it known, what is left is a multiple of 2^32, and rounding finds which.
  const low = (Math.imul((upper % 0x100000000) | 0, 1_000_000_000) + lower) >>> 0
  const high = Math.round((upper * 1_000_000_000 + lower - low) / 0x100000000)
  if (high > 0xffffffff) return 'too large'
  into.negative = negative
  into.high = high
  into.low = low
  return undefined
}

function readAnyForm(bytes: Buffer, start: number, end: number, into: Integer): IntegerFault | undefined {
  if (end - start > charactersMax) return 'too long'
  // Of at most 15 digits no fraction is near enough to a whole number to be rounded to it, and below 2^53 each is exact.
  const double = plainDouble(bytes, start, end)
  if (Number.isSafeInteger(double)) {
    const amount = Math.abs(double)
    into.negative = bytes[start] === minus
    into.high = Math.floor(amount / 0x100000000)
    into.low = amount >>> 0
    return undefined
  }
  if (Number.isNaN(double) && !isNumber(bytes, start, end)) return 'no number'
  const negative = bytes[start] === minus
  const first = negative ? start + 1 : start
  // Where the digits end, and how many of them stand before the point once the exponent has moved it.
  let digitsEnd = first
  let point = -1
  for (; digitsEnd < end; digitsEnd++) {
    const byte = bytes[digitsEnd] as number
    if (byte === dot) point = digitsEnd - first
    else if (byte > nine) break
  }
  if (point === -1) point = digitsEnd - first
  point += exponentAt(bytes, digitsEnd, end)

  let high = 0
  let low = 0
  let place = 0
  for (let at = first; at < digitsEnd; at++) {
    if (bytes[at] === dot) continue
    const digit = (bytes[at] as number) - zero
    if (place >= point) {
      if (digit !== 0) return 'no whole number'
      continue
    }
    low = low * 10 + digit
    high = high * 10 + Math.floor(low / 0x100000000)
    low >>>= 0
    if (high > 0xffffffff) return 'too large'
    place++
  }
  if (high !== 0 || low !== 0) {
    // A half times 10^6 is exact as a double.
    for (let zeros = point - place; zeros > 0; zeros -= 6) {
      const power = powers[Math.min(zeros, 6)] as number
      low *= power
      high = high * power + Math.floor(low / 0x100000000)
      low >>>= 0
      if (high > 0xffffffff) return 'too large'
    }
  }
  into.negative = negative
  into.high = high
  into.low = low
  return undefined
}

/** The exponent of a number whose letter for it is at `at`; 0 where it has none. */
function exponentAt(bytes: Buffer, at: number, end: number): number {
  if (at === end) return 0
  at++
  const negative = bytes[at] === minus
  if (negative || bytes[at] === plus) at++
  let exponent = 0
  for (; at < end && exponent < exponentMax; at++) exponent = exponent * 10 + (bytes[at] as number) - zero
  return negative ? -exponent : exponent
}
