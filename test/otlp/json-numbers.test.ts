import { describe, expect, test } from 'vitest'
import { OtlpError } from '../../src/otlp/error.ts'
import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import type { Signal } from '../../src/otlp/signal.ts'
import { attribute, field, fixed32, fixed64, number, pointRequest, spanRequest, tag } from './wire-format.ts'

interface Place {
  readonly signal: Signal
  readonly json: (value: string) => string
  readonly protobuf: (value: bigint) => Buffer
  readonly min: bigint
  readonly max: bigint
}

const spanJson = (members: string): string => `{"resourceSpans":[{"scopeSpans":[{"spans":[{${members}}]}]}]}`
const pointJson = (kind: string, members: string): string =>
  `{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","${kind}":{"dataPoints":[{${members}}]}}]}]}]}`

const int32 = { min: -(2n ** 31n), max: 2n ** 31n - 1n }
const uint32 = { min: 0n, max: 2n ** 32n - 1n }
const int64 = { min: -(2n ** 63n), max: 2n ** 63n - 1n }
const uint64 = { min: 0n, max: 2n ** 64n - 1n }

const unsigned = (value: bigint): bigint => BigInt.asUintN(64, value)
const zigzag = (value: bigint): bigint => (value < 0n ? -2n * value - 1n : 2n * value)

/** One field of each kind of whole number that OTLP has, and those that the hard case names. */
const places: Record<string, Place> = {
  intValue: {
    signal: 'traces',
    json: (value) => spanJson(`"attributes":[{"key":"k","value":{"intValue":${value}}}]`),
    protobuf: (value) => spanRequest(attribute(9, 'k', number(3, value))),
    ...int64,
  },
  asInt: {
    signal: 'metrics',
    json: (value) => pointJson('gauge', `"asInt":${value}`),
    protobuf: (value) => pointRequest(5, fixed64(6, unsigned(value))),
    ...int64,
  },
  timeUnixNano: {
    signal: 'metrics',
    json: (value) => pointJson('gauge', `"timeUnixNano":${value}`),
    protobuf: (value) => pointRequest(5, fixed64(3, value)),
    ...uint64,
  },
  count: {
    signal: 'metrics',
    json: (value) => pointJson('summary', `"count":${value}`),
    protobuf: (value) => pointRequest(11, fixed64(4, value)),
    ...uint64,
  },
  bucketCounts: {
    signal: 'metrics',
    json: (value) => pointJson('histogram', `"bucketCounts":[${value}]`),
    protobuf: (value) => pointRequest(9, field(6, fixed64(6, value).subarray(1))),
    ...uint64,
  },
  'positive.bucketCounts': {
    signal: 'metrics',
    json: (value) => pointJson('exponentialHistogram', `"positive":{"bucketCounts":[${value}]}`),
    protobuf: (value) => pointRequest(10, field(8, field(2, number(2, value).subarray(1)))),
    ...uint64,
  },
  zeroCount: {
    signal: 'metrics',
    json: (value) => pointJson('exponentialHistogram', `"zeroCount":${value}`),
    protobuf: (value) => pointRequest(10, fixed64(7, value)),
    ...uint64,
  },
  scale: {
    signal: 'metrics',
    json: (value) => pointJson('exponentialHistogram', `"scale":${value}`),
    protobuf: (value) => pointRequest(10, number(6, zigzag(value))),
    ...int32,
  },
  'flags of a point': {
    signal: 'metrics',
    json: (value) => pointJson('gauge', `"flags":${value}`),
    protobuf: (value) => pointRequest(5, number(8, value)),
    ...uint32,
  },
  'flags of a span': {
    signal: 'traces',
    json: (value) => spanJson(`"flags":${value}`),
    protobuf: (value) => spanRequest(fixed32(16, Number(value))),
    ...uint32,
  },
  kind: {
    signal: 'traces',
    json: (value) => spanJson(`"kind":${value}`),
    protobuf: (value) => spanRequest(number(6, value)),
    ...int32,
  },
  keyStrindex: {
    signal: 'traces',
    json: (value) => spanJson(`"attributes":[{"keyStrindex":${value}}]`),
    protobuf: (value) => spanRequest(field(9, number(3, value))),
    ...int32,
  },
}

function convert(place: Place, value: string): Buffer | string {
  try {
    return protobufFromJson(place.signal, Buffer.from(place.json(value)))
  } catch (error) {
    if (error instanceof OtlpError) return error.message
    throw error
  }
}

describe.each(Object.entries(places))('A2: whole numbers, exactly or not at all: %s', (name, place) => {
  // The name of an enum is no number in a string.
  const forms = (text: string): string[] => (name === 'kind' ? [text] : [text, `"${text}"`])

  const { min, max } = place
  const inside = [
    0n,
    1n,
    9n,
    10n,
    99n,
    127n,
    128n,
    min,
    min + 1n,
    max,
    max - 1n,
    999_999_999n,
    1_000_000_000n,
    2n ** 31n,
    2n ** 32n - 1n,
    2n ** 32n,
    2n ** 53n,
    2n ** 53n + 1n,
    9_007_199_254_740_993n,
    1_544_712_660_000_000_001n,
    -1n,
    -128n,
    10n ** 18n - 1n,
    10n ** 18n,
    10n ** 19n,
  ].filter((value) => value >= min && value <= max)

  test('what fits comes out as it is', () => {
    for (const value of inside) {
      for (const text of forms(String(value)))
        expect([text, convert(place, text)]).toEqual([text, place.protobuf(value)])
    }
  })

  test('what does not fit is refused', () => {
    for (const value of [
      min - 1n,
      max + 1n,
      min * 10n - 1n,
      max * 10n,
      2n ** 64n,
      10n ** 20n,
      -(2n ** 64n),
      10n ** 40n,
    ]) {
      for (const text of forms(String(value))) expect(convert(place, text)).toContain('a whole number from')
    }
    for (const text of forms('1e400').concat(forms('1e99999999999'), forms('9'.repeat(1000)))) {
      expect(convert(place, text)).toContain('a whole number from')
    }
  })

  test.each([
    ['1e3', 1000n],
    ['1E+2', 100n],
    ['1.0', 1n],
    ['-0', 0n],
    ['-0.0e-5', 0n],
    ['0e999999', 0n],
    ['12.50e1', 125n],
    ['1200e-2', 12n],
  ])('%s is a whole number', (text, value) => {
    for (const form of forms(text)) expect(convert(place, form)).toEqual(place.protobuf(value))
  })

  test.each(['1.5', '1e-1', '0.1', '1e-400'])('%s is none', (text) => {
    for (const form of forms(text))
      expect(convert(place, form)).toContain(`is "${text}"; a whole number from`)
  })

  test.each([
    '"+1"',
    '" 1"',
    '"1 "',
    '""',
    '"abc"',
    '"0x10"',
    '"01"',
    '"1_000"',
    '"1."',
    '".5"',
    '"-"',
    '"--1"',
    '"1e"',
    '"NaN"',
    '"Infinity"',
    '"null"',
    'true',
    '{}',
    '[1]',
    '"１"',
  ])('%s is refused', (text) => {
    expect(convert(place, text)).toMatch(/belongs here$/)
  })

  test.each(['+1', '01', '1.', '.5', '-', '--1', '1e', '0x10', 'NaN'])('%s is no JSON', (text) => {
    expect(convert(place, text)).toMatch(/belongs here$|^not JSON/)
  })
})

test('the message names the field, the value and the rule', () => {
  expect(convert(places.timeUnixNano as Place, '"soon"')).toBe(
    'resourceMetrics[0].scopeMetrics[0].metrics[0].gauge.dataPoints[0].timeUnixNano is "soon"; a whole number from 0 to 2^64-1 belongs here',
  )
})

describe('doubles', () => {
  const place: Omit<Place, 'protobuf' | 'min' | 'max'> = {
    signal: 'traces',
    json: (value) => spanJson(`"attributes":[{"key":"k","value":{"doubleValue":${value}}}]`),
  }
  const double = (value: number): Buffer => {
    const bytes = Buffer.alloc(8)
    bytes.writeDoubleLE(value)
    return spanRequest(attribute(9, 'k', Buffer.concat([tag(4, 1), bytes])))
  }

  test.each([
    ['0', 0],
    ['-0', -0],
    ['0.1', 0.1],
    ['"0.1"', 0.1],
    ['5e-324', 5e-324],
    ['1.7976931348623157e308', Number.MAX_VALUE],
    ['9007199254740993', 9007199254740992],
    ['123456789012345678901234567890', 1.2345678901234568e29],
    ['1e-400', 0],
    ['"NaN"', Number.NaN],
    ['"Infinity"', Number.POSITIVE_INFINITY],
    ['"-Infinity"', Number.NEGATIVE_INFINITY],
  ])('%s', (text, value) => {
    expect(convert(place as Place, text)).toEqual(double(value))
  })

  test.each([
    'NaN',
    'Infinity',
    '1e309',
    '"1e309"',
    '""',
    '" 1"',
    '"+1"',
    '"nan"',
    '"inf"',
    '"0x1"',
    'true',
    '{}',
    '01',
    '1.',
  ])('%s is refused', (text) => {
    expect(convert(place as Place, text)).toMatch(/doubleValue is |^not JSON/)
  })
})
