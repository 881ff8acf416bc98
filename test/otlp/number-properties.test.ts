import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Integer, readInteger } from '../../src/otlp/integer.ts'
import { isNumber, plainDouble } from '../../src/otlp/number-form.ts'

const digits = fc.string({ unit: fc.constantFrom(...'0123456789'), minLength: 1, maxLength: 24 })
const zeros = fc.nat(24).map((count) => '0'.repeat(count))
const numberText = fc
  .record({
    sign: fc.constantFrom('', '-'),
    whole: fc.oneof(digits, fc.constant('0')),
    trail: zeros,
    fraction: fc.option(fc.oneof(digits, zeros), { nil: undefined }),
    exponent: fc.option(fc.integer({ min: -30, max: 30 }), { nil: undefined }),
  })
  .map(
    ({ sign, whole, trail, fraction, exponent }) =>
      `${sign}${whole}${trail}${fraction === undefined ? '' : `.${fraction}`}${exponent === undefined ? '' : `e${exponent}`}`,
  )
const anyText = fc.oneof(
  numberText,
  fc.string({ unit: fc.constantFrom(...'0123456789.-+eE'), maxLength: 12 }),
)

const form = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$/

/** The amount in 64 bits of a whole number, by way of fractions of big integers; undefined for everything else. */
function amountOf(text: string): bigint | undefined {
  if (!form.test(text)) return undefined
  const [, whole = '', fraction = '', exponent = '0'] =
    /^-?([0-9]+)(?:\.([0-9]+))?(?:[eE](.+))?$/.exec(text) ?? []
  const power = Number(exponent) - fraction.length
  const value = BigInt(whole + fraction)
  if (value === 0n) return 0n
  if (Math.abs(power) > 100) return undefined
  const scale = 10n ** BigInt(Math.abs(power))
  if (power < 0 && value % scale !== 0n) return undefined
  const amount = power < 0 ? value / scale : value * scale
  return amount < 2n ** 64n ? amount : undefined
}

test('a whole number is read exactly in every form of JSON, and nothing else is', () => {
  fc.assert(
    fc.property(anyText, (text) => {
      const read: Integer = { negative: false, high: 0, low: 0 }
      const fault = readInteger(Buffer.from(`[${text}]`), 1, 1 + text.length, read)
      const amount = amountOf(text)
      expect(fault === undefined ? (BigInt(read.high) << 32n) | BigInt(read.low) : undefined).toBe(amount)
      if (amount !== undefined) expect(read.negative).toBe(text.startsWith('-'))
    }),
    { numRuns: 20_000 },
  )
})

test('a text is a number where RFC 8259 says so', () => {
  fc.assert(
    fc.property(anyText, (text) => {
      expect(isNumber(Buffer.from(`[${text}]`), 1, 1 + text.length)).toBe(form.test(text))
    }),
    { numRuns: 20_000 },
  )
})

test('a plain decimal becomes the double that JavaScript reads, or is left to it', () => {
  let read = 0
  fc.assert(
    fc.property(anyText, (text) => {
      const value = plainDouble(Buffer.from(`[${text}]`), 1, 1 + text.length)
      if (Number.isNaN(value)) return
      read++
      expect([form.test(text), value]).toEqual([true, Number(text)])
    }),
    { numRuns: 20_000 },
  )
  expect(read).toBeGreaterThan(1000)
})
