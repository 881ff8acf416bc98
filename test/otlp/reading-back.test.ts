import { describe, expect, test } from 'vitest'
import { OtlpError } from '../../src/otlp/error.ts'
import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import { jsonFromProtobuf } from '../../src/otlp/protobuf-to-json.ts'
import { splitTrace } from '../../src/otlp/requests.ts'
import { traceHash, walk } from '../../src/otlp/walk.ts'
import { decoded, payloadFile, payloads } from './payloads.ts'
import {
  attribute,
  field,
  fixed64,
  logRequest,
  number,
  pointRequest,
  resource,
  spanRequest,
  tag,
  varint,
} from './wire-format.ts'

describe('protobuf to JSON', () => {
  test.each(
    payloads
      .filter(({ contentType }) => contentType !== 'application/json')
      .map((one) => [one.file, one] as const),
  )('%s comes back from JSON byte for byte', (_, payload) => {
    const body = decoded(payload)
    const text = jsonFromProtobuf(payload.signal, body)
    expect(text).not.toContain('\n')
    expect(protobufFromJson(payload.signal, Buffer.from(text))).toEqual(body)
  })

  test('what a real SDK sent as JSON comes back as it was', () => {
    const json = payloadFile('js-traces.json')
    // The SDK writes whole numbers as numbers, where we write strings, and lists of nothing, where we write nothing.
    const alike = (_: string, value: unknown): unknown => {
      if (typeof value === 'number') return String(value)
      return Array.isArray(value) && value.length === 0 ? undefined : value
    }
    const back = jsonFromProtobuf('traces', protobufFromJson('traces', json))
    expect(JSON.parse(back, alike)).toEqual(JSON.parse(json.toString(), alike))
  })

  test('values are written as OTLP JSON writes them', () => {
    const double = Buffer.concat([tag(4, 1), Buffer.from('000000000000f8ff', 'hex')])
    const body = spanRequest(
      field(1, Buffer.alloc(16, 0xab)),
      field(4),
      field(5, 'a "name"\n'),
      number(6, 3),
      fixed64(7, 1544712660000000001n),
      attribute(9, 'i', number(3, -5n)),
      attribute(9, 'd', double),
      attribute(9, 'y', field(7, Buffer.from([0, 0xff]))),
      attribute(9, 'b', number(2, 0)),
      attribute(9, 'e', Buffer.alloc(0)),
      number(10, 4294967295),
      number(500, 1),
    )
    expect(jsonFromProtobuf('traces', body)).toBe(
      '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"abababababababababababababababab","parentSpanId":"",' +
        '"name":"a \\"name\\"\\n","kind":3,"startTimeUnixNano":"1544712660000000001","attributes":[' +
        '{"key":"i","value":{"intValue":"-5"}},{"key":"d","value":{"doubleValue":"NaN"}},' +
        '{"key":"y","value":{"bytesValue":"AP8="}},{"key":"b","value":{"boolValue":false}},{"key":"e","value":{}}],' +
        '"droppedAttributesCount":4294967295}]}]}]}',
    )
  })

  test('B3: packed and unpacked numbers read the same', () => {
    const counts = [7n, 2n ** 64n - 1n]
    const unpacked = counts.map((count) => fixed64(6, count))
    const packed = field(6, ...unpacked.map((bytes) => bytes.subarray(1)))
    const text = (...fields: Buffer[]): string => jsonFromProtobuf('metrics', pointRequest(9, ...fields))
    expect(text(...unpacked)).toContain('"bucketCounts":["7","18446744073709551615"]')
    expect(text(packed)).toBe(text(...unpacked))
    expect(text(unpacked[0] as Buffer, packed)).toContain('"bucketCounts":["7","7","18446744073709551615"]')
  })

  test('what comes twice is merged, joined, or the last of it', () => {
    expect(
      jsonFromProtobuf(
        'traces',
        spanRequest(field(5, 'a'), field(15, number(3, 2)), field(5, 'b'), field(15, field(2, 'm'))),
      ),
    ).toBe('{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"b","status":{"message":"m","code":2}}]}]}]}')
    expect(jsonFromProtobuf('logs', logRequest(field(5, field(1, 'a'), number(3, 1))))).toBe(
      '{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"intValue":"1"}}]}]}]}',
    )
    expect(jsonFromProtobuf('traces', Buffer.concat([field(1), field(1, field(3, 'u'))]))).toBe(
      '{"resourceSpans":[{},{"schemaUrl":"u"}]}',
    )
  })

  test('bytes that are no request are refused, and bad UTF-8 is read with U+FFFD', () => {
    expect(() => jsonFromProtobuf('traces', Buffer.from([0x0a, 0x05]))).toThrow(OtlpError)
    expect(jsonFromProtobuf('traces', field(1, field(3, Buffer.from([0xff]))))).toBe(
      '{"resourceSpans":[{"schemaUrl":"\ufffd"}]}',
    )
  })

  test('a profile that this release does not know is refused', () => {
    expect(() =>
      jsonFromProtobuf('profiles', field(1, field(2, field(2, field(1, Buffer.from([0x08])))))),
    ).not.toThrow()
    expect(() =>
      jsonFromProtobuf('profiles', field(1, field(2, field(2, tag(3, 1), Buffer.alloc(8))))),
    ).not.toThrow()
    const headers: Buffer[] = []
    let length = 0
    for (let i = 0; i < 20_000; i++) {
      const header = Buffer.concat([tag(i % 2 === 0 ? 1 : 5, 2), varint(length)])
      headers.push(header)
      length += header.length
    }
    const deep = Buffer.concat(headers.reverse())
    expect(() => jsonFromProtobuf('profiles', field(2, field(6, field(2, deep))))).toThrow(OtlpError)
  })
})

describe('one trace of a request', () => {
  const id = (byte: number): Buffer => Buffer.alloc(16, byte)
  const span = (byte: number, name: string): Buffer => field(2, field(1, id(byte)), field(5, name))
  const scope = field(1, field(1, 'lib'))

  test('has its spans only, with resource, scope and schema urls', () => {
    const body = Buffer.concat([
      field(
        1,
        resource('a'),
        field(2, scope, span(1, 'x'), span(2, 'y'), span(1, 'z'), field(3, 'u')),
        field(3, 'r'),
      ),
      field(1, resource('b'), field(2, scope, span(2, 'w'))),
      field(1, resource('c'), field(2, span(3, 'v')), field(2, scope, span(1, 'q'))),
    ])
    expect(splitTrace(body, id(1))).toEqual(
      Buffer.concat([
        field(1, resource('a'), field(2, scope, span(1, 'x'), span(1, 'z'), field(3, 'u')), field(3, 'r')),
        field(1, resource('c'), field(2, scope, span(1, 'q'))),
      ]),
    )
    expect(splitTrace(body, id(9))).toEqual(Buffer.alloc(0))
    expect(splitTrace(Buffer.alloc(0), id(1))).toEqual(Buffer.alloc(0))
  })

  test('goes by the last id of a span, and does not look into groups', () => {
    const twice = field(2, field(1, id(1)), field(1, id(2)))
    const group = field(2, tag(20, 3), field(1, id(1)), tag(20, 4))
    const body = field(1, field(2, twice, group))
    expect(splitTrace(body, id(1))).toEqual(Buffer.alloc(0))
    expect(splitTrace(body, id(2))).toEqual(field(1, field(2, twice)))
  })

  test('all traces of a real request together have all its spans', () => {
    const body = payloadFile('js-traces.pb')
    const ids = new Set(jsonFromProtobuf('traces', body).match(/(?<="traceId":")[0-9a-f]{32}/g))
    const parts = [...ids].map((hex) => splitTrace(body, Buffer.from(hex, 'hex')))
    expect(parts.length).toBe(20)
    expect(parts.reduce((sum, part) => sum + walk('traces', part).items, 0)).toBe(100)
    expect(parts.flatMap((part) => [...walk('traces', part).summary.traceHashes])).toEqual(
      [...ids].map((hex) => traceHash(Buffer.from(hex, 'hex'), 0)),
    )
  })
})
