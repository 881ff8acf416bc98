import { describe, expect, test } from 'vitest'
import { OtlpError } from '../../src/otlp/error.ts'
import type { Signal } from '../../src/otlp/signal.ts'
import { walk } from '../../src/otlp/walk.ts'
import { payloadFile } from './payloads.ts'
import {
  attribute,
  field,
  fixed32,
  fixed64,
  logRequest,
  nestedArrays,
  number,
  paddedVarint,
  pointRequest,
  spanRequest,
  tag,
  varint,
} from './wire-format.ts'

const traceId = Buffer.alloc(16, 7)
const spanId = Buffer.alloc(8, 7)

function refusal(signal: Signal, body: Buffer): string {
  try {
    walk(signal, body)
  } catch (error) {
    if (error instanceof OtlpError) return error.message
    throw error
  }
  return 'taken'
}

function spanRefusal(...fields: Buffer[]): string {
  return refusal('traces', spanRequest(...fields))
}

const inSpan = 'not an export request of traces: resource_spans.scope_spans.spans'

describe('framing', () => {
  test('a request of no bytes has nothing in it', () => {
    expect(walk('traces', Buffer.alloc(0))).toEqual({
      items: 0,
      summary: {
        minTimeUnixNano: undefined,
        maxTimeUnixNano: undefined,
        services: [],
        traceHashes: new BigInt64Array(),
        cut: false,
      },
      body: Buffer.alloc(0),
      repairedStrings: 0,
    })
  })

  test('what is right is answered as the very buffer that came', () => {
    const body = payloadFile('js-traces.pb')
    expect(walk('traces', body).body).toBe(body)
  })

  test.each([
    ['text', Buffer.from('1234'), 'not an export request of traces: field 6 at byte 0 is cut off'],
    [
      'a length that swallows the next field',
      spanRequest(Buffer.from([0x2a, 3, 0x61, 0x30])),
      `${inSpan}.name at byte 6 has a length of 3 bytes where 2 are left in what holds it`,
    ],
    [
      'a length past the end of the request',
      Buffer.from([0x0a, 5, 0x12]),
      'not an export request of traces: resource_spans at byte 0 has a length of 5 bytes where 1 are left in what holds it',
    ],
    [
      'a tag without a length',
      Buffer.from([0x0a]),
      'not an export request of traces: resource_spans at byte 0 has no length',
    ],
    [
      'a length that is cut off',
      Buffer.from([0x0a, 0x80]),
      'not an export request of traces: resource_spans at byte 0 has a length that is cut off',
    ],
    [
      'a tag that is cut off',
      Buffer.from([0x80]),
      'not an export request of traces: the request has a tag that is cut off at byte 0',
    ],
    [
      'a field with the number 0',
      Buffer.from([0x02, 0]),
      'not an export request of traces: the request has a field with the number 0 at byte 0',
    ],
    [
      'a padded field number 0',
      Buffer.from([0x80, 0x00]),
      'not an export request of traces: the request has a field with the number 0 at byte 0',
    ],
    [
      'a field number of 2^29',
      Buffer.from([0x82, 0x80, 0x80, 0x80, 0x10, 0]),
      'not an export request of traces: the request has a field number above 536,870,911 at byte 0',
    ],
    [
      'a tag of six bytes',
      Buffer.from([0x8a, 0x80, 0x80, 0x80, 0x80, 0x00, 0]),
      'not an export request of traces: the request has a tag of more than 5 bytes at byte 0',
    ],
    [
      'a wire type that does not exist',
      Buffer.from([0x9e, 0x01]),
      'not an export request of traces: field 19 at byte 0 has the wire type 6, which does not exist',
    ],
  ])('%s is refused', (_, body, message) => {
    expect(refusal('traces', body)).toBe(message)
  })

  test('every cut of a request of one ResourceSpans is refused, except the cut to nothing', () => {
    const body = payloadFile('telemetrygen-traces.pb')
    const taken: number[] = []
    for (let end = 0; end < body.length; end++) {
      if (refusal('traces', body.subarray(0, end)) === 'taken') taken.push(end)
    }
    expect(taken).toEqual([0])
  })

  test.each([2, 3, 4, 5])('a length padded to %i bytes is taken', (length) => {
    const name = Buffer.concat([tag(5, 2), paddedVarint(5, length), Buffer.from('hello')])
    expect(walk('traces', spanRequest(name)).items).toBe(1)
  })

  test('a length padded to 6 bytes is refused, as C++ and Python do', () => {
    const name = Buffer.concat([tag(5, 2), paddedVarint(5, 6), Buffer.from('hello')])
    expect(spanRefusal(name)).toBe(`${inSpan}.name at byte 6 has a length written in more than 5 bytes`)
  })

  test('a number padded to 10 bytes is taken, one of 11 refused', () => {
    expect(spanRefusal(tag(6, 0), paddedVarint(1, 10))).toBe('taken')
    expect(spanRefusal(tag(6, 0), paddedVarint(1, 11))).toBe(
      `${inSpan}.kind at byte 6 is a number of more than 64 bits`,
    )
  })

  test('a tenth byte may hold only the 64th bit', () => {
    const ones = Buffer.alloc(9, 0xff)
    expect(spanRefusal(tag(6, 0), ones, Buffer.from([1]))).toBe('taken')
    expect(spanRefusal(tag(6, 0), ones, Buffer.from([2]))).toBe(
      `${inSpan}.kind at byte 6 is a number of more than 64 bits`,
    )
  })

  test('numbers of fixed size that are cut off are refused', () => {
    expect(spanRefusal(tag(7, 1), Buffer.alloc(7))).toBe(
      `${inSpan}.start_time_unix_nano at byte 6 is cut off`,
    )
    expect(spanRefusal(tag(16, 5), Buffer.alloc(3))).toBe(`${inSpan}.flags at byte 6 is cut off`)
    expect(spanRefusal(tag(6, 0))).toBe(`${inSpan}.kind at byte 6 is cut off`)
  })

  test('a number must not borrow bytes from what follows its message', () => {
    const span = field(2, tag(7, 1), Buffer.alloc(4))
    const scope = field(2, span, field(3, 'a schema url'))
    expect(refusal('traces', field(1, scope))).toBe(`${inSpan}.start_time_unix_nano at byte 6 is cut off`)
  })
})

describe('fields', () => {
  test('a known field of the wrong wire type is refused', () => {
    expect(spanRefusal(number(5, 1))).toBe(`${inSpan}.name at byte 6 has the wire type 0 where 2 belongs`)
    expect(spanRefusal(field(7, 'x'))).toBe(
      `${inSpan}.start_time_unix_nano at byte 6 has the wire type 2 where 1 belongs`,
    )
    expect(spanRefusal(tag(5, 3), tag(5, 4))).toBe(
      `${inSpan}.name at byte 6 has the wire type 3 where 2 belongs`,
    )
  })

  test('unknown fields of every wire type are skipped, their framing is checked', () => {
    const fields = [number(200, 1), fixed64(201, 1n), field(202, '\xff'), fixed32(203, 1), number(31, 300)]
    expect(spanRefusal(...fields)).toBe('taken')
    expect(spanRefusal(tag(202, 2), varint(9))).toBe(
      `${inSpan}.field 202 at byte 6 has a length of 9 bytes where 0 are left in what holds it`,
    )
  })

  test('the highest field number is taken', () => {
    expect(refusal('traces', Buffer.concat([varint((2n ** 29n - 1n) * 8n), varint(1)]))).toBe('taken')
  })

  test('unknown groups are skipped to their own end', () => {
    const group = Buffer.concat([tag(20, 3), number(1, 1), tag(21, 3), field(5, 'x'), tag(21, 4), tag(20, 4)])
    expect(walk('traces', spanRequest(group, field(5, 'n'))).items).toBe(1)
  })

  test('groups that do not end, or end twice, or as another, are refused', () => {
    expect(spanRefusal(tag(20, 3), number(1, 1))).toBe(
      'not an export request of traces: resource_spans.scope_spans.spans.field 20 has a group that has no end at byte 10',
    )
    expect(spanRefusal(tag(20, 4))).toBe(
      `${inSpan}.field 20 at byte 6 is the end of a group that was not started`,
    )
    expect(spanRefusal(tag(20, 3), tag(21, 4))).toBe(
      `${inSpan}.field 20.field 21 at byte 8 is the end of a group that was not started`,
    )
  })

  test('a span id in a group is no span id of ours', () => {
    expect(spanRefusal(tag(20, 3), field(2, 'abc'), tag(20, 4))).toBe('taken')
  })

  test.each([0, 16])('a trace id of %i bytes is taken', (length) => {
    expect(spanRefusal(field(1, Buffer.alloc(length)))).toBe('taken')
  })

  test.each([1, 8, 15, 17, 24, 32])('a trace id of %i bytes is refused', (length) => {
    const rule = `has ${length} bytes; a trace id has 16 or none`
    const id = Buffer.alloc(length, 1)
    expect(spanRefusal(field(1, id))).toBe(`${inSpan}.trace_id at byte 6 ${rule}`)
    expect(spanRefusal(field(13, field(1, id)))).toBe(`${inSpan}.links.trace_id at byte 8 ${rule}`)
    expect(refusal('logs', logRequest(field(9, id)))).toBe(
      `not an export request of logs: resource_logs.scope_logs.log_records.trace_id at byte 6 ${rule}`,
    )
    expect(refusal('metrics', pointRequest(5, field(5, field(5, id))))).toContain(
      `exemplars.trace_id at byte 15 ${rule}`,
    )
  })

  test.each([1, 7, 9, 16])('a span id of %i bytes is refused', (length) => {
    const rule = `has ${length} bytes; a span id has 8 or none`
    const id = Buffer.alloc(length, 1)
    expect(spanRefusal(field(2, id))).toBe(`${inSpan}.span_id at byte 6 ${rule}`)
    expect(spanRefusal(field(4, id))).toBe(`${inSpan}.parent_span_id at byte 6 ${rule}`)
    expect(spanRefusal(field(13, field(2, id)))).toBe(`${inSpan}.links.span_id at byte 8 ${rule}`)
  })

  test('ids of the right length are taken', () => {
    expect(spanRefusal(field(1, traceId), field(2, spanId), field(4, spanId))).toBe('taken')
  })
})

describe('B3: repeated numbers', () => {
  const counts = [1n, 2n, 3n].map((count) => fixed64(6, count))
  const packedCounts = field(6, Buffer.alloc(24))
  const bounds = field(7, Buffer.alloc(16))

  test('packed, unpacked and half of each are taken', () => {
    for (const fields of [counts, [packedCounts], [...counts, packedCounts, bounds, fixed64(7, 0n)]]) {
      expect(walk('metrics', pointRequest(9, ...fields)).items).toBe(1)
    }
  })

  test('buckets of exponential histograms are taken in both forms', () => {
    const unpacked = field(8, number(1, 3), number(2, 1), number(2, 300))
    const packed = field(9, field(2, varint(1), varint(300), varint(2n ** 64n - 1n)))
    expect(walk('metrics', pointRequest(10, unpacked, packed)).items).toBe(1)
  })

  test('a wrong wire type is refused', () => {
    expect(refusal('metrics', pointRequest(9, number(6, 1)))).toContain(
      'bucket_counts at byte 13 has the wire type 0',
    )
  })

  test('packed numbers that end in the middle of one are refused', () => {
    expect(refusal('metrics', pointRequest(9, field(6, Buffer.alloc(23))))).toContain(
      'has 23 bytes, no multiple of 8',
    )
    expect(refusal('metrics', pointRequest(10, field(8, field(2, Buffer.from([0x80])))))).toContain(
      'bucket_counts at byte 15 is cut off',
    )
  })
})

describe('nesting', () => {
  test('40 arrays in each other are taken, 60 are not', () => {
    expect(walk('traces', spanRequest(attribute(9, 'deep', nestedArrays(40)))).items).toBe(1)
    expect(spanRefusal(attribute(9, 'deep', nestedArrays(60)))).toContain(
      'is nested more than 100 messages deep',
    )
  })

  test('100 messages below the request are taken, 101 are not, as in C++, Java and Python', () => {
    // Five on the way to the value of the attribute, two for each array.
    const request = (depth: number, innermost: Buffer): Buffer => {
      let value = innermost
      for (let i = 0; i < depth; i++) value = field(5, field(1, value))
      return spanRequest(attribute(9, 'deep', value))
    }
    expect(refusal('traces', request(47, field(5)))).toBe('taken')
    expect(refusal('traces', request(47, field(5, field(1))))).toContain(
      'is nested more than 100 messages deep',
    )
  })

  test('groups count', () => {
    const groups = (depth: number): Buffer =>
      Buffer.concat([...Array(depth).fill(tag(20, 3)), ...Array(depth).fill(tag(20, 4))])
    expect(refusal('traces', groups(99))).toBe('taken')
    expect(refusal('traces', groups(100))).toContain('is nested more than 100 messages deep')
  })

  test('the bound may be moved', () => {
    const body = spanRequest(attribute(9, 'deep', nestedArrays(60)))
    expect(walk('traces', body, { maxDepth: 200 }).items).toBe(1)
    expect(() => walk('traces', spanRequest(), { maxDepth: 2 })).toThrow(OtlpError)
  })

  test('a million levels cost no stack', () => {
    const levels = 1_000_000
    const body = Buffer.concat([...Array(levels).fill(tag(20, 3)), ...Array(levels).fill(tag(20, 4))])
    expect(refusal('traces', body)).toContain('is nested more than 100 messages deep')
  })

  test('a message about a deep field stays short', () => {
    const wrong = spanRefusal(attribute(9, 'deep', Buffer.concat([nestedArrays(47), number(1, 1)])))
    expect(wrong.length).toBeLessThan(1000)
    const deep = spanRefusal(attribute(9, 'deep', nestedArrays(90)))
    expect(deep.length).toBeLessThan(400)
  })
})

describe('B7: a request on the path of another signal', () => {
  const files = { traces: 'js-traces.pb', metrics: 'js-metrics.pb', logs: 'js-logs.pb' }
  const signals = ['traces', 'metrics', 'logs'] as const
  const crossings = signals.flatMap((sent) =>
    signals.filter((path) => path !== sent).map((path) => [sent, path] as const),
  )

  test.each(crossings)('%s posted as %s are refused', (sent, path) => {
    expect(() => walk(path, payloadFile(files[sent]))).toThrow(OtlpError)
  })
})

describe('B9: nothing known in it', () => {
  test('spans in the deprecated field 1000 pass as they are, with no items', () => {
    const body = field(1, field(1), field(1000, field(2, field(5, 'old'))))
    const walked = walk('traces', body)
    expect([walked.items, walked.body]).toEqual([0, body])
    expect(walked.body).toBe(body)
  })

  test('a request of unknown fields only passes as it is', () => {
    const body = field(77, 'anything')
    expect(walk('logs', body)).toMatchObject({ items: 0, body, repairedStrings: 0 })
  })
})
