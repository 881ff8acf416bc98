import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { decodeSummary, encodeSummary, type Summary } from '../../src/otlp/summary.ts'
import { walk } from '../../src/otlp/walk.ts'
import { payloadFile } from './payloads.ts'

const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
const summaries: fc.Arbitrary<Summary> = fc.record({
  minTimeUnixNano: fc.option(int64, { nil: undefined }),
  maxTimeUnixNano: fc.option(int64, { nil: undefined }),
  services: fc.array(fc.string({ unit: 'grapheme', maxLength: 256 }), { maxLength: 64 }),
  traceHashes: fc.array(int64, { maxLength: 200 }).map((hashes) => BigInt64Array.from(hashes)),
  cut: fc.boolean(),
})

test('every summary comes back as it was', () => {
  fc.assert(
    fc.property(summaries, (summary) => {
      expect(decodeSummary(encodeSummary(summary))).toEqual(summary)
    }),
  )
})

test('that of a hundred spans in 20 traces takes 200 bytes', () => {
  const { summary } = walk('traces', payloadFile('js-traces.pb'))
  expect(encodeSummary(summary).length).toBe(194)
  expect(decodeSummary(encodeSummary(summary))).toEqual(summary)
})

test('ten thousand hashes and 64 long names come back', () => {
  const summary: Summary = {
    minTimeUnixNano: 1n,
    maxTimeUnixNano: 2n ** 63n - 1n,
    services: Array.from({ length: 64 }, (_, i) => String.fromCodePoint(0x1f600 + i).repeat(256)),
    traceHashes: BigInt64Array.from({ length: 10_000 }, (_, i) => BigInt(i - 5000) * 2n ** 50n),
    cut: true,
  }
  expect(decodeSummary(encodeSummary(summary))).toEqual(summary)
})

test('the first byte is the version, and another one is refused', () => {
  const bytes = encodeSummary({
    minTimeUnixNano: undefined,
    maxTimeUnixNano: undefined,
    services: [],
    traceHashes: new BigInt64Array(),
    cut: false,
  })
  expect(bytes.toString('hex')).toBe('0100000000000000')
  bytes[0] = 2
  expect(() => decodeSummary(bytes)).toThrow(
    new Failure('data', 'a summary of version 2, where this release knows version 1'),
  )
  expect(() => decodeSummary(Buffer.alloc(0))).toThrow(Failure)
})

test('a summary that is cut off is refused', () => {
  const bytes = encodeSummary({
    minTimeUnixNano: 1n,
    maxTimeUnixNano: 2n,
    services: ['a'],
    traceHashes: BigInt64Array.of(1n),
    cut: false,
  })
  for (let end = 1; end < bytes.length; end++) {
    expect(() => decodeSummary(bytes.subarray(0, end))).toThrow(
      new Failure('data', 'a summary that is cut off'),
    )
  }
})
