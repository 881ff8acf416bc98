import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { QueueRecord } from '../../src/queue/batch.ts'
import { decodeRecords } from '../../src/queue/copy-format.ts'

// PostgreSQL documentation, COPY, "Binary Format", written down once more.
const signature = Buffer.concat([Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1'), Buffer.alloc(8)])
const trailer = Buffer.from([0xff, 0xff])

function field(value: Buffer | null): Buffer {
  const length = Buffer.alloc(4)
  length.writeInt32BE(value === null ? -1 : value.length)
  return Buffer.concat([length, value ?? Buffer.alloc(0)])
}

function number(value: number | bigint, bytes: 2 | 4 | 8): Buffer {
  const out = Buffer.alloc(8)
  out.writeBigInt64BE(BigInt(value))
  return out.subarray(8 - bytes)
}

function copied(record: QueueRecord): Buffer {
  return Buffer.concat([
    number(9, 2),
    field(number(record.id, 8)),
    field(number(record.signal, 2)),
    field(Buffer.from(record.tenant)),
    field(number(record.encoding, 2)),
    field(number(record.items, 4)),
    field(number(record.bytes, 4)),
    field(Buffer.from(record.request_id)),
    field(record.summary),
    field(record.payload),
  ])
}

const ascii = fc.string({ unit: fc.integer({ min: 32, max: 126 }).map((code) => String.fromCharCode(code)) })
const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((array) => Buffer.from(array))
const record: fc.Arbitrary<QueueRecord> = fc.record({
  id: fc.bigInt({ min: 1n, max: 2n ** 63n - 1n }),
  signal: fc.integer({ min: 1, max: 4 }),
  tenant: ascii,
  encoding: fc.integer({ min: 0, max: 1 }),
  items: fc.nat(),
  bytes: fc.nat(),
  request_id: ascii,
  summary: bytes(100),
  payload: fc.option(bytes(200)),
})

test('whatever rows are copied out come back as they are, with the header before the first or apart from it', () => {
  fc.assert(
    fc.property(fc.array(record), fc.boolean(), (records, isApart) => {
      const [first = Buffer.alloc(0), ...others] = records.map(copied)
      const begin = isApart ? [signature, first] : [Buffer.concat([signature, first])]
      const pieces = [...begin.filter(({ length }) => length > 0), ...others, trailer]
      expect(decodeRecords(pieces)).toEqual(records)
    }),
  )
})

test('a payload of over 32 KiB has its memory to itself, so that it can be given back at once', () => {
  const one = {
    id: 1n,
    signal: 1,
    tenant: 'default',
    encoding: 0,
    items: 1,
    bytes: 40_000,
    request_id: 'request',
    summary: Buffer.alloc(0),
    payload: Buffer.alloc(40_000, 1),
  }
  const [decoded] = decodeRecords([Buffer.concat([signature, copied(one)]), trailer])
  expect(decoded?.payload).toEqual(one.payload)
  expect(decoded?.payload?.buffer.byteLength).toBe(40_000)
})

test('what is no such row is a bug with a sentence, and no row of something else', () => {
  expect(() => decodeRecords([Buffer.from('SELECT 1, which is no COPY')])).toThrow(
    'does not begin as it should',
  )
  expect(() => decodeRecords([signature, Buffer.from([0, 2, 0, 0])])).toThrow('a copied row of 2 fields')
})
