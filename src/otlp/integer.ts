/** A whole number that was read from its text: its amount as halves of 64 bits, and its sign. */
export interface Integer {
  negative: boolean
  high: number
  low: number
}

/** What can be wrong with the text of a whole number. */
export type IntegerFault = 'no number' | 'no whole number' | 'too large' | 'too long'

const form = /^(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?$/
const digitsMax = 20
/** Longer texts are not looked at. */
const charactersMax = 100
const uint64Max = 0xffffffffffffffffn

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
  const negative = bytes[at] === 0x2d
  if (negative) at++
  const digits = end - at
  if (digits < 1 || digits > digitsMax || (bytes[at] === 0x30 && digits > 1))
    return readAnyForm(bytes, start, end, into)

  // Both parts are exact as doubles: at most 11 digits and 9 digits.
  const split = end - 9
  let upper = 0
  let lower = 0
  for (; at < split; at++) {
    const digit = (bytes[at] as number) - 0x30
    if (digit < 0 || digit > 9) return readAnyForm(bytes, start, end, into)
    upper = upper * 10 + digit
  }
  for (; at < end; at++) {
    const digit = (bytes[at] as number) - 0x30
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
  const match = form.exec(bytes.toString('latin1', start, end))
  if (match === null) return 'no number'
  const [, sign, whole = '', fraction = '', exponent = '0'] = match
  const digits = (whole + fraction).replace(/^0+/, '')
  const significant = digits.replace(/0+$/, '')
  into.negative = sign === '-'
  into.high = 0
  into.low = 0
  if (significant === '') return undefined
  // How many zeros follow the significant digits; a huge exponent is Infinity here, which every comparison bears.
  const zeros = Number(exponent) - fraction.length + digits.length - significant.length
  if (zeros < 0) return 'no whole number'
  if (significant.length + zeros > digitsMax) return 'too large'
  const amount = BigInt(significant + '0'.repeat(zeros))
  if (amount > uint64Max) return 'too large'
  into.high = Number(amount >> 32n)
  into.low = Number(amount & 0xffffffffn)
  return undefined
}
