import { describe, expect, test } from 'vitest'
import { OtlpError } from '../../src/otlp/error.ts'
import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import type { Signal } from '../../src/otlp/signal.ts'
import { walk } from '../../src/otlp/walk.ts'
import { payloadFile } from './payloads.ts'
import {
  attribute,
  field,
  fixed32,
  fixed64,
  logRequest,
  number,
  pointRequest,
  resource,
  spanRequest,
} from './wire-format.ts'

function convert(json: string | Buffer, signal: Signal = 'traces'): Buffer {
  const body = protobufFromJson(signal, Buffer.from(json as string))
  // Neither refused nor repaired.
  expect(walk(signal, body).body).toBe(body)
  return body
}

function refusal(json: string | Buffer, signal: Signal = 'traces'): string {
  try {
    protobufFromJson(signal, Buffer.from(json as string))
  } catch (error) {
    if (error instanceof OtlpError) return error.message
    throw error
  }
  return 'taken'
}

/** A request with one span of these members, written as JSON text. */
function spanJson(members: string): string {
  return `{"resourceSpans":[{"scopeSpans":[{"spans":[{${members}}]}]}]}`
}

function logJson(members: string): string {
  return `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{${members}}]}]}]}`
}

/** A span with one attribute whose value is this JSON text, and the same in protobuf. */
function valueJson(value: string): string {
  return spanJson(`"attributes":[{"key":"k","value":${value}}]`)
}
function valueRequest(...value: Buffer[]): Buffer {
  return spanRequest(attribute(9, 'k', Buffer.concat(value)))
}

const span = 'resourceSpans[0].scopeSpans[0].spans[0]'
const value = `${span}.attributes[0].value`

test('what a real SDK sent as JSON has the spans, times, service and traces that it sent', () => {
  const walked = walk('traces', convert(payloadFile('js-traces.json')))
  expect([walked.items, walked.summary.services, walked.summary.traceHashes.length]).toEqual([
    100,
    ['checkout'],
    20,
  ])
})

describe('A1: text', () => {
  test.each([
    ['"ok\\ud83d"', 'ok\ufffd'],
    ['"\\ud83d ok"', '\ufffd ok'],
    ['"\\ude00ok"', '\ufffdok'],
    ['"\\ud83d\\ud83d\\ude00"', '\ufffd😀'],
    ['"\\ud83d\\u0041"', '\ufffdA'],
    ['"\\ud83d\\n"', '\ufffd\n'],
    ['"\\ud83d\\ude00"', '😀'],
    ['"größe ✓ 😀"', 'größe ✓ 😀'],
    ['"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u20AC\\u0000"', '"\\/\b\f\n\r\té€\0'],
    [`"${'\\ud83d'.repeat(100)}"`, '\ufffd'.repeat(100)],
    [`"${'x'.repeat(127)}\\u0061"`, `${'x'.repeat(127)}a`],
    [`"${'x'.repeat(20_000)}"`, 'x'.repeat(20_000)],
    ['""', ''],
  ])('%s in every kind of text', (json, text) => {
    expect(convert(spanJson(`"name":${json}`))).toEqual(spanRequest(field(5, text)))
    expect(convert(spanJson(`"attributes":[{"key":${json}}]`))).toEqual(spanRequest(field(9, field(1, text))))
    expect(convert(logJson(`"body":{"stringValue":${json}}`), 'logs')).toEqual(
      logRequest(field(5, field(1, text))),
    )
    expect(convert(valueJson(`{"kvlistValue":{"values":[{"key":${json}}]}}`))).toEqual(
      valueRequest(field(6, field(1, field(1, text)))),
    )
  })

  test('escapes in names of fields', () => {
    expect(convert('{"resource\\u0053pans":[]}')).toEqual(Buffer.alloc(0))
  })

  test.each([
    ['"\\x"', 53, 'x\\"}]}]}]}', 'an escape of JSON'],
    ['"\\u12g4"', 56, 'g4\\"}]}]}]}', 'four hex digits'],
  ])('%s is no JSON', (json, at, found, wanted) => {
    expect(refusal(spanJson(`"name":${json}`))).toBe(
      `not JSON: at byte ${at} stands "${found}" where ${wanted} should stand`,
    )
  })

  test('a control character is no JSON', () => {
    expect(refusal(spanJson('"name":"a\nb"'))).toMatch(
      /^not JSON: at byte 53 stands .* where the end of the string/,
    )
  })
})

describe('A5: ids', () => {
  const traceId = '5b8efff798038103d269b633813fc60c'

  test('are hex of either case', () => {
    const expected = spanRequest(
      field(1, Buffer.from(traceId, 'hex')),
      field(2, Buffer.from('eee19b7ec3c1b174', 'hex')),
    )
    expect(convert(spanJson(`"traceId":"${traceId}","spanId":"eee19b7ec3c1b174"`))).toEqual(expected)
    expect(convert(spanJson(`"traceId":"${traceId.toUpperCase()}","spanId":"EEE19B7EC3C1B174"`))).toEqual(
      expected,
    )
  })

  test('may be empty', () => {
    expect(convert(spanJson('"parentSpanId":""'))).toEqual(spanRequest(field(4)))
  })

  test.each([
    ['"W47/95gDgQPSabYzgT/GDA=="', '"W47/95gDgQPSabYzgT/GDA=="; a trace id is 32 hex digits or empty'],
    ['"abcd"', '"abcd"; a trace id is 32 hex digits or empty'],
    [`"${'z'.repeat(32)}"`, `"${'z'.repeat(32)}"; a trace id is 32 hex digits or empty`],
    [`"${traceId}00"`, `"${traceId}00"; a trace id is 32 hex digits or empty`],
    [`"0x${traceId.slice(2)}"`, `"0x${traceId.slice(2)}"; a trace id is 32 hex digits or empty`],
    ['[91,142]', 'a list; a string of 32 hex digits, or an empty one, belongs here'],
    ['12', '"12"; a string of 32 hex digits, or an empty one, belongs here'],
  ])('%s is no trace id', (json, rule) => {
    expect(refusal(spanJson(`"traceId":${json}`))).toBe(`${span}.traceId is ${rule}`)
    expect(refusal(spanJson(`"name":"good","links":[{"traceId":"${traceId}"},{"traceId":${json}}]`))).toBe(
      `${span}.links[1].traceId is ${rule}`,
    )
  })

  test('of an exemplar are named where they are wrong', () => {
    const json =
      '{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{"exemplars":[{"spanId":"x"}]}]}}]}]}]}'
    expect(refusal(json, 'metrics')).toBe(
      'resourceMetrics[0].scopeMetrics[0].metrics[0].gauge.dataPoints[0].exemplars[0].spanId is "x"; a span id is 16 hex digits or empty',
    )
  })
})

describe('A6: values', () => {
  test.each([
    ['{}', valueRequest()],
    ['{"somethingNew":{"a":[1]}}', valueRequest()],
    ['{"stringValue":""}', valueRequest(field(1))],
    ['{"boolValue":false}', valueRequest(number(2, 0))],
    ['{"boolValue":true}', valueRequest(number(2, 1))],
    ['{"intValue":0}', valueRequest(number(3, 0))],
    ['{"arrayValue":{}}', valueRequest(field(5))],
    [
      '{"arrayValue":{"values":[{},{"intValue":1},null]}}',
      valueRequest(field(5, field(1), field(1, number(3, 1)), field(1))),
    ],
    [
      '{"kvlistValue":{"values":[{"key":"a","value":{}}]}}',
      valueRequest(field(6, field(1, field(1, 'a'), field(2)))),
    ],
    ['{"stringValue":null,"intValue":"7"}', valueRequest(number(3, 7))],
    ['{"string_value":"snake"}', valueRequest(field(1, 'snake'))],
  ])('%s is kept as it is', (json, body) => {
    expect(convert(valueJson(json))).toEqual(body)
  })

  test('null and no value at all are attributes without one', () => {
    const without = spanRequest(field(9, field(1, 'k')))
    expect(convert(valueJson('null'))).toEqual(without)
    expect(convert(spanJson('"attributes":[{"key":"k"}]'))).toEqual(without)
    expect(convert(spanJson('"attributes":null'))).toEqual(spanRequest())
  })

  test('only an array of values may hold null', () => {
    expect(refusal(spanJson('"attributes":[null]'))).toBe(
      `${span}.attributes[0] is null, which no list may hold`,
    )
    expect(refusal('{"resourceSpans":[null]}')).toBe('resourceSpans[0] is null, which no list may hold')
  })

  test('two at once are refused', () => {
    expect(refusal(valueJson('{"stringValue":"a","intValue":1}'))).toBe(
      `${value}.intValue stands beside another field of which only one may be set (value)`,
    )
  })

  test.each([
    ['"AAEC"', '000102'],
    ['"_-8="', 'ffef'],
    ['"/+8"', 'ffef'],
    ['"_-8"', 'ffef'],
    ['"\\/+8="', 'ffef'],
    ['"AA=="', '00'],
    ['"AA"', '00'],
    ['""', ''],
  ])('bytes %s are base64', (json, hex) => {
    expect(convert(valueJson(`{"bytesValue":${json}}`))).toEqual(
      valueRequest(field(7, Buffer.from(hex, 'hex'))),
    )
  })

  test.each(['"A"', '"AA="', '"AAE!"', '"A==="', '"===="', '"=AAA"', '"AA==AA=="'])(
    'bytes %s are refused',
    (json) => {
      const text = JSON.stringify(JSON.parse(json))
      expect(refusal(valueJson(`{"bytesValue":${json}}`))).toBe(
        `${value}.bytesValue is ${text}, which is not base64`,
      )
    },
  )
})

describe('A9: JSON that is not OTLP', () => {
  const span1 = spanRequest(field(5, 'n'), fixed64(7, 5n), number(10, 2))

  test('names as in the .proto file are read', () => {
    const json =
      '{"resource_spans":[{"scope_spans":[{"spans":[{"name":"n","start_time_unix_nano":"5","dropped_attributes_count":2}]}]}]}'
    expect(convert(json)).toEqual(span1)
    expect(convert(json.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase()))).toEqual(span1)
  })

  test('an object of nothing is a request of nothing', () => {
    expect(convert('{}')).toEqual(Buffer.alloc(0))
    expect(convert(' \t\r\n{ } \n')).toEqual(Buffer.alloc(0))
    expect(convert('{"resourceSpans":null}')).toEqual(Buffer.alloc(0))
    expect(convert('{"resourceSpans":[]}')).toEqual(Buffer.alloc(0))
    expect(convert('{"resourceSpans":[],"more":1}')).toEqual(Buffer.alloc(0))
  })

  test.each(['{"spans":[]}', '{"resourceLogs":[{}]}', '{"ResourceSpans":[]}', '{"":0}'])(
    '%s is refused',
    (json) => {
      expect(refusal(json)).toBe('the request has none of the fields of its signal')
    },
  )

  test.each([
    ['', 'not JSON: the request ends where an object should stand'],
    ['1234', 'not JSON: at byte 0 stands "1234" where an object should stand'],
    ['[]', 'not JSON: at byte 0 stands "[]" where an object should stand'],
    ['null', 'not JSON: at byte 0 stands "null" where an object should stand'],
    ['\ufeff{}', 'not JSON: at byte 0 stands "\ufeff{}" where an object should stand'],
    ['{} {}', 'not JSON: at byte 3 stands "{}" where the end should stand'],
    ['{"resourceSpans":[]', 'not JSON: the request ends where a comma or the end of the object should stand'],
    ['{"resourceSpans":[', 'resourceSpans[0] is cut off; an object belongs here'],
    ['{"resourceSpans"', 'not JSON: the request ends where a colon should stand'],
    ['{"resourceSp', 'not JSON: the request ends where the end of the string should stand'],
    ['{"resourceSpans":[],}', 'not JSON: at byte 20 stands "}" where a name in quotes should stand'],
    ['{"resourceSpans":[{},]}', 'resourceSpans[1] is "]}"; an object belongs here'],
    [
      '{"resourceSpans":[{}{}]}',
      'not JSON: at byte 20 stands "{}]}" where a comma or the end of the list should stand',
    ],
    [
      "{'resourceSpans':[]}",
      'not JSON: at byte 1 stands "\'resourceSpans\':" where a name in quotes should stand',
    ],
    ['{"resourceSpans":nul}', 'not JSON: at byte 20 stands "}" where null should stand'],
    ['{"resourceSpans":{"a":1}}', 'resourceSpans is an object; a list belongs here'],
    ['{"resourceSpans":["x"]}', 'resourceSpans[0] is "\\"x\\""; an object belongs here'],
  ])('%s is refused', (json, message) => {
    expect(refusal(json)).toBe(message)
  })

  test('bytes that are not UTF-8 are refused', () => {
    expect(refusal(Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d]))).toBe(
      'the request is not UTF-8',
    )
  })
})

describe('unknown fields', () => {
  test('are ignored, whatever they hold', () => {
    const unknown = '"nope":{"a":[1,-2.5e+3,"x\\u0041\\"",true,false,null,{},[],[[{"b":{}}]]],"":{"c":0}}'
    expect(convert(spanJson(`${unknown},"name":"n",${unknown}`))).toEqual(spanRequest(field(5, 'n')))
  })

  test.each([
    '{"a"}',
    '{"a":}',
    '[1,]',
    '[1 2]',
    '{"a":1,}',
    '01',
    '1.',
    '-',
    '.5',
    '+1',
    'True',
    '"\\q"',
    '{]',
    '[}',
    '1e',
    'NaN',
  ])('must still be JSON: %s', (json) => {
    expect(refusal(spanJson(`"nope":${json}`))).toMatch(/^not JSON: at byte /)
  })

  test('may nest a thousand deep and no deeper', () => {
    const nested = (depth: number): string => spanJson(`"nope":${'['.repeat(depth)}${']'.repeat(depth)}`)
    expect(convert(nested(1000))).toEqual(spanRequest())
    expect(refusal(nested(100_000))).toMatch(/^an unknown field nests more than 1000 deep/)
  })
})

describe('a name that comes twice', () => {
  test('counts as it came last', () => {
    expect(convert(spanJson('"name":"a","kind":1,"name":"b"'))).toEqual(
      spanRequest(number(6, 1), field(5, 'b')),
    )
    expect(convert(spanJson('"traceState":"a","trace_state":"b"'))).toEqual(spanRequest(field(3, 'b')))
    expect(convert(spanJson('"status":{"code":2},"kind":1,"status":{"message":"m"},"kind":3'))).toEqual(
      spanRequest(field(15, field(2, 'm')), number(6, 3)),
    )
    expect(convert(spanJson('"links":[{},{}],"events":[{}],"links":[{"flags":1}],"events":[]'))).toEqual(
      spanRequest(field(13, fixed32(6, 1))),
    )
    expect(convert(spanJson('"name":"a","name":null'))).toEqual(spanRequest())
    expect(convert(valueJson('{"stringValue":"a","stringValue":"b"}'))).toEqual(valueRequest(field(1, 'b')))
    expect(convert(valueJson('{"stringValue":"a","stringValue":null,"intValue":1}'))).toEqual(
      valueRequest(number(3, 1)),
    )
    expect(convert('{"resourceSpans":[{},{}],"resource_spans":[{"schemaUrl":"u"}]}')).toEqual(
      field(1, field(3, 'u')),
    )
  })

  test('costs no more than its length', () => {
    const big = `"attributes":[${Array(20_000).fill('{"key":"k"}').join(',')}]`
    const json = spanJson(`"status":{},${big},${Array(20_000).fill('"status":{},"name":"n"').join(',')}`)
    expect(convert(json).length).toBe(100_017)
  })
})

describe('depth', () => {
  const nested = (depth: number): string =>
    valueJson(`${'{"arrayValue":{"values":['.repeat(depth)}{"intValue":1}${']}}'.repeat(depth)}`)

  test('40 arrays in each other are taken, 60 are not', () => {
    expect(walk('traces', convert(nested(40))).items).toBe(1)
    expect(refusal(nested(60))).toContain('is nested more than 100 messages deep')
  })

  test('of the same kind as for protobuf: 100 messages below the request', () => {
    expect(walk('traces', convert(nested(47))).items).toBe(1)
    expect(refusal(nested(48))).toContain('is nested more than 100 messages deep')
    expect(refusal(nested(100_000)).length).toBeLessThan(400)
  })
})

describe('the rest', () => {
  test('lengths of one to four bytes come out right, whatever came before', () => {
    for (const length of [1, 127, 128, 5, 16_383, 16_384, 3, 2_097_152, 130]) {
      const name = 'x'.repeat(length)
      const json = `{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s"}}]},"scopeSpans":[{"spans":[{"name":"${name}"},{}]}]},{}]}`
      const expected = Buffer.concat([
        field(1, resource('s'), field(2, field(2, field(5, name)), field(2))),
        field(1),
      ])
      expect(convert(json).equals(expected)).toBe(true)
    }
  })

  test('true and false are no words', () => {
    expect(refusal(valueJson('{"boolValue":"true"}'))).toBe(
      `${value}.boolValue is "\\"true\\""; true or false belongs here`,
    )
    expect(refusal(valueJson('{"boolValue":1}'))).toBe(
      `${value}.boolValue is "1"; true or false belongs here`,
    )
  })

  test.each([
    ['"SPAN_KIND_SERVER"', 2],
    ['2', 2],
    ['2.0', 2],
    ['0', 0],
    ['77', 77],
    ['-1', -1],
  ])('kind %s', (json, kind) => {
    expect(convert(spanJson(`"kind":${json}`))).toEqual(spanRequest(number(6, kind)))
  })

  test.each(['"NOPE"', '"2"', '""', '"span_kind_server"'])('kind %s is refused', (json) => {
    expect(refusal(spanJson(`"kind":${json}`))).toBe(
      `${span}.kind is ${json}; a number or one of SPAN_KIND_UNSPECIFIED, SPAN_KIND_INTERNAL, SPAN_KIND_SERVER, SPAN_KIND_CLIENT, SPAN_KIND_PRODUCER, SPAN_KIND_CONSUMER belongs here`,
    )
  })

  test('severities go by name or number', () => {
    expect(convert(logJson('"severityNumber":"SEVERITY_NUMBER_ERROR2"'), 'logs')).toEqual(
      logRequest(number(2, 18)),
    )
    expect(convert(logJson('"severityNumber":9'), 'logs')).toEqual(logRequest(number(2, 9)))
  })

  test('repeated numbers are packed, none are nothing', () => {
    const point = (members: string): string =>
      `{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","histogram":{"dataPoints":[{${members}}]}}]}]}]}`
    const counts = Buffer.concat([Buffer.alloc(16), Buffer.alloc(8, 0xff)])
    counts.writeBigUInt64LE(7n, 0)
    expect(convert(point('"bucketCounts":["7",0,18446744073709551615]'), 'metrics')).toEqual(
      pointRequest(9, field(6, counts)),
    )
    expect(convert(point('"bucketCounts":[],"explicitBounds":[]'), 'metrics')).toEqual(pointRequest(9))
  })

  test('an error that would quote a huge value stays short', () => {
    const long = 'x'.repeat(100_000)
    for (const members of [
      `"traceId":"${long}"`,
      `"kind":"${long}"`,
      `"flags":"${long}"`,
      `"status":"${long}"`,
      `"links":"${long}"`,
    ]) {
      expect(refusal(spanJson(members)).length).toBeLessThan(400)
    }
  })
})
