import { describe, expect, test } from 'vitest'
import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import { traceHash, walk } from '../../src/otlp/walk.ts'
import { decoded, payloads } from './payloads.ts'
import {
  attribute,
  field,
  fixed64,
  logRequest,
  number,
  pointRequest,
  resource,
  spanRequest,
} from './wire-format.ts'

function times(body: Buffer, signal: 'traces' | 'metrics' | 'logs' = 'traces'): (bigint | undefined)[] {
  const { minTimeUnixNano, maxTimeUnixNano } = walk(signal, body).summary
  return [minTimeUnixNano, maxTimeUnixNano]
}

function services(...resources: Buffer[]): string[] {
  return walk('traces', Buffer.concat(resources.map((fields) => field(1, fields)))).summary.services
}

describe('what real SDKs sent', () => {
  test.each(payloads.map((payload) => [payload.file, payload] as const))(
    '%s is summed up as it is',
    (_, payload) => {
      const came = decoded(payload)
      const body = payload.contentType === 'application/json' ? protobufFromJson(payload.signal, came) : came
      const { items, summary, repairedStrings } = walk(payload.signal, body)
      expect({ items, bytes: came.length, repairedStrings, traceIds: summary.traceHashes.length }).toEqual({
        items: payload.items,
        bytes: payload.bytesDecoded,
        repairedStrings: 0,
        traceIds: payload.traceIds ?? 0,
      })
      expect({ ...summary, traceHashes: new BigInt64Array() }).toEqual({
        minTimeUnixNano: BigInt(payload.minTimeUnixNano),
        maxTimeUnixNano: BigInt(payload.maxTimeUnixNano),
        services: payload.services,
        traceHashes: new BigInt64Array(),
        cut: false,
      })
    },
  )
})

describe('items', () => {
  test('data points of every kind are counted, metrics without any are not', () => {
    const kinds = [5, 7, 9, 10, 11]
    const metrics = kinds.map((kind) => field(2, field(1, 'm'), field(kind, field(1), field(1))))
    expect(
      walk('metrics', field(1, field(2, ...metrics, field(2, field(1, 'none')), field(2, field(5))))),
    ).toMatchObject({
      items: 10,
    })
  })

  test('requests one after the other are one request', () => {
    const body = Buffer.concat([spanRequest(), spanRequest(), logRequest()])
    expect(walk('traces', body).items).toBe(3)
  })
})

describe('B6: times', () => {
  test('of spans are starts and ends', () => {
    expect(times(spanRequest(fixed64(7, 5n), fixed64(8, 9n)))).toEqual([5n, 9n])
    expect(
      times(Buffer.concat([spanRequest(fixed64(7, 2n ** 40n)), spanRequest(fixed64(8, 2n ** 33n))])),
    ).toEqual([2n ** 33n, 2n ** 40n])
  })

  test('that end before they start are kept', () => {
    expect(times(spanRequest(fixed64(7, 9n), fixed64(8, 8n)))).toEqual([8n, 9n])
  })

  test.each([0n, 2n ** 63n, 2n ** 64n - 1n])('%i is left out', (time) => {
    expect(times(spanRequest(fixed64(7, time)))).toEqual([undefined, undefined])
    expect(times(spanRequest(fixed64(7, time), fixed64(8, 7n)))).toEqual([7n, 7n])
    expect(times(spanRequest(fixed64(8, 7n), fixed64(7, time)))).toEqual([7n, 7n])
    expect(times(logRequest(fixed64(1, time)), 'logs')).toEqual([undefined, undefined])
  })

  test('the first and the last nanosecond count', () => {
    expect(times(spanRequest(fixed64(7, 1n), fixed64(8, 2n ** 63n - 1n)))).toEqual([1n, 2n ** 63n - 1n])
    expect(times(spanRequest(fixed64(7, 2n ** 63n - 1n)))).toEqual([2n ** 63n - 1n, 2n ** 63n - 1n])
  })

  test('of events, links and exemplars do not count', () => {
    expect(times(spanRequest(field(11, fixed64(1, 3n)), fixed64(7, 5n)))).toEqual([5n, 5n])
    expect(
      times(pointRequest(5, fixed64(2, 1n), fixed64(3, 6n), field(5, fixed64(2, 3n))), 'metrics'),
    ).toEqual([6n, 6n])
  })

  test('of a log record are its time, else when it was observed', () => {
    expect(times(logRequest(fixed64(1, 5n), fixed64(11, 9n)), 'logs')).toEqual([5n, 5n])
    expect(times(logRequest(fixed64(11, 9n), fixed64(1, 5n)), 'logs')).toEqual([5n, 5n])
    expect(times(logRequest(fixed64(1, 0n), fixed64(11, 9n)), 'logs')).toEqual([9n, 9n])
    expect(times(logRequest(fixed64(11, 9n)), 'logs')).toEqual([9n, 9n])
    expect(times(logRequest(fixed64(1, 0n), fixed64(11, 0n)), 'logs')).toEqual([undefined, undefined])
    const two = field(1, field(2, field(2, fixed64(11, 9n)), field(2, fixed64(1, 4n))))
    expect(times(two, 'logs')).toEqual([4n, 9n])
  })
})

describe('services', () => {
  test('are the distinct values of service.name, in order of appearance', () => {
    expect(services(resource('b'), resource('a'), resource('b'))).toEqual(['b', 'a'])
  })

  test('are found with the value before the key', () => {
    const reversed = field(1, field(1, field(2, field(1, 'late')), field(1, 'service.name')))
    expect(services(reversed)).toEqual(['late'])
  })

  test('are of resources only, of that name only, and text only', () => {
    const others = field(
      1,
      attribute(1, 'service.names', field(1, 'x')),
      attribute(1, 'service_name', field(1, 'y')),
      attribute(1, 'service.name', number(3, 5)),
      attribute(1, 'list', field(6, attribute(1, 'service.name', field(1, 'inner')))),
    )
    expect(services(others)).toEqual([])
    expect(
      walk('traces', spanRequest(attribute(9, 'service.name', field(1, 'span')))).summary.services,
    ).toEqual([])
  })

  test('of one attribute do not leak into the next', () => {
    const fields = field(1, field(1, field(1, 'service.name')), attribute(1, 'other', field(1, 'wrong')))
    expect(services(fields)).toEqual([])
  })

  test('may be empty, which is a name too', () => {
    expect(services(resource(''))).toEqual([''])
  })

  test('B1: U+0000 is replaced in the summary and kept in the body', () => {
    const body = field(1, resource('a\0b'))
    const walked = walk('traces', body)
    expect(walked.summary.services).toEqual(['a\ufffdb'])
    expect(walked.body).toBe(body)
  })

  test('that are not UTF-8 read as they are stored', () => {
    const walked = walk('traces', field(1, resource(Buffer.from([0x61, 0xf0, 0x9f, 0x98]))))
    expect([walked.summary.services, walked.repairedStrings]).toEqual([['a\ufffd'], 1])
  })

  test.each([10_000, 1_000_000])('B2: one of %i bytes is cut to 256 characters', (length) => {
    expect(services(resource('x'.repeat(length)))).toEqual(['x'.repeat(256)])
    expect(services(resource('😀'.repeat(length / 4)))).toEqual(['😀'.repeat(256)])
    expect(services(resource(`x${'😀'.repeat(length / 4)}`))).toEqual([`x${'😀'.repeat(255)}`])
  })

  test('B2: 64 are kept, and the summary says that some are left out', () => {
    const names = Array.from({ length: 20_000 }, (_, i) => `service-${i}`)
    const body = (count: number): Buffer =>
      Buffer.concat(names.slice(0, count).map((name) => field(1, resource(name))))
    const kept = walk('traces', body(64)).summary
    expect([kept.services, kept.cut]).toEqual([names.slice(0, 64), false])
    const cut = walk('traces', body(20_000)).summary
    expect([cut.services, cut.cut]).toEqual([names.slice(0, 64), true])
    const again = walk('traces', Buffer.concat([body(64), body(64)])).summary
    expect([again.services.length, again.cut]).toEqual([64, false])
  })
})

describe('trace hashes', () => {
  const id = (seed: number): Buffer => {
    const bytes = Buffer.alloc(16)
    for (let i = 0; i < 16; i++) bytes[i] = (seed * 7919 + i * 31 + (seed >> 3)) & 0xff
    bytes.writeUInt32BE(seed, 4)
    return bytes
  }

  test('are the first eight bytes XOR the last eight, signed', () => {
    expect(traceHash(Buffer.from('000000000000000a0000000000000003', 'hex'), 0)).toBe(9n)
    expect(traceHash(Buffer.from('ff80000000000000000000000000000000', 'hex'), 1)).toBe(-(2n ** 63n))
    expect(traceHash(Buffer.from('5b8efff798038103d269b633813fc60c', 'hex'), 0)).toBe(
      BigInt.asIntN(64, 0x5b8efff798038103n ^ 0xd269b633813fc60cn),
    )
  })

  test('are those of spans, each once, in order of appearance', () => {
    const ids = [3, 1, 3, 3, 2, 1].map(id)
    const body = Buffer.concat(ids.map((bytes) => spanRequest(field(1, bytes), field(13, field(1, id(99))))))
    expect([...walk('traces', body).summary.traceHashes]).toEqual(
      [3, 1, 2].map((seed) => traceHash(id(seed), 0)),
    )
  })

  test('leave out spans without an id, and take one of zeros', () => {
    expect([...walk('traces', spanRequest(field(1))).summary.traceHashes]).toEqual([])
    expect([...walk('traces', spanRequest(field(1, Buffer.alloc(16)))).summary.traceHashes]).toEqual([0n])
  })

  test('do not come from log records', () => {
    expect([...walk('logs', logRequest(field(9, id(1)))).summary.traceHashes]).toEqual([])
  })

  test('B2: of 100,000 traces the first 10,000 are kept, and the summary says so', () => {
    const ids = Array.from({ length: 100_000 }, (_, i) => id(i))
    const body = (count: number): Buffer =>
      field(1, field(2, ...ids.slice(0, count).map((bytes) => field(2, field(1, bytes)))))
    const expected = BigInt64Array.from(ids.slice(0, 10_000), (bytes) => traceHash(bytes, 0))
    expect(walk('traces', body(10_000)).summary).toMatchObject({ traceHashes: expected, cut: false })
    expect(walk('traces', body(100_000)).summary).toMatchObject({ traceHashes: expected, cut: true })
  })

  test('of one request are forgotten at the next', () => {
    walk('traces', spanRequest(field(1, id(1))))
    expect([...walk('traces', spanRequest(field(1, id(2)))).summary.traceHashes]).toEqual([
      traceHash(id(2), 0),
    ])
    expect([...walk('traces', spanRequest(field(1, id(2)))).summary.traceHashes]).toEqual([
      traceHash(id(2), 0),
    ])
  })
})
