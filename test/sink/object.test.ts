import { expect, test } from 'vitest'
import type { Signal } from '../../src/otlp/signal.ts'
import type { Summary } from '../../src/otlp/summary.ts'
import { type BatchRow, objectsOfBatch } from '../../src/sink/object.ts'
import { checksumOf } from '../../src/sink/object-key.ts'

const batchId = '019cbb30-c97f-7abc-8def-0123456789ab'
const hour = 'year=2026/month=03/day=04/hour=23'

function row(
  id: bigint,
  text: string,
  changes: Partial<Omit<BatchRow, 'summary'>> & { summary?: Partial<Summary> } = {},
) {
  const summary = {
    minTimeUnixNano: undefined,
    maxTimeUnixNano: undefined,
    services: [],
    traceHashes: new BigInt64Array(),
    cut: false,
    ...changes.summary,
  }
  const payload = Buffer.from(text)
  const { signal = 'traces' as Signal, tenant = 'default', encoding = 'identity' } = changes
  return {
    id,
    signal,
    tenant,
    encoding,
    items: 1,
    bytes: payload.length,
    payload,
    summary,
  } satisfies BatchRow
}

test('a batch of one tenant, signal and encoding is one object, with everything the catalog says', () => {
  const rows = [
    row(7n, 'first', {
      summary: {
        minTimeUnixNano: 50n,
        maxTimeUnixNano: 60n,
        services: ['a', 'b'],
        traceHashes: BigInt64Array.of(1n, -2n),
      },
    }),
    row(8n, '', { summary: {} }),
    row(9n, 'third!', {
      summary: {
        minTimeUnixNano: 40n,
        maxTimeUnixNano: 55n,
        services: ['b', 'c'],
        traceHashes: BigInt64Array.of(1n),
      },
    }),
  ]
  const body = Buffer.from('firstthird!')
  expect(objectsOfBatch(batchId, rows, { prefix: 'p/' })).toEqual([
    {
      tenant: 'default',
      signal: 'traces',
      encoding: 'identity',
      key: `p/traces/tenant=default/${hour}/traces_${batchId}.binpb`,
      body,
      checksum: checksumOf(body),
      requests: 3,
      items: 3,
      bytes: 11,
      minTimeUnixNano: 40n,
      maxTimeUnixNano: 60n,
      services: ['a', 'b', 'c'],
      queueIds: [7n, 8n, 9n],
      offsets: [0, 5, 5],
      traceHashes: [BigInt64Array.of(1n, -2n), new BigInt64Array(), BigInt64Array.of(1n)],
    },
  ])
})

test.each([
  ['8 to 11', 8n],
  ['99,999,998 to 100,000,001', 99_999_998n],
  ['beyond what a double holds', 2n ** 53n - 1n],
])('requests stand in the order of their ids as numbers, whatever order they come in: %s', (_, first) => {
  const rows = [0n, 1n, 2n, 3n].map((step) => row(first + step, `<${first + step}>`))
  const [object] = objectsOfBatch(batchId, rows)
  expect(object?.queueIds).toEqual([first, first + 1n, first + 2n, first + 3n])
  expect(object?.body.toString()).toBe([0n, 1n, 2n, 3n].map((step) => `<${first + step}>`).join(''))
  const shuffled = [2, 0, 3, 1].flatMap((index) => rows[index] ?? [])
  expect(objectsOfBatch(batchId, shuffled)).toEqual(objectsOfBatch(batchId, rows))
})

test('tenants, signals and encodings never share an object', () => {
  const rows = [
    row(1n, 'a', { tenant: 'a' }),
    row(2n, 'b', { tenant: 'b' }),
    row(3n, 'c', { tenant: 'a', encoding: 'gzip' }),
    row(4n, 'd', { tenant: 'a', signal: 'logs' }),
    row(5n, 'e', { tenant: 'a' }),
  ]
  const objects = objectsOfBatch(batchId, rows).map(({ key, queueIds }) => ({ key, queueIds }))
  expect(objects).toEqual([
    { key: `traces/tenant=a/${hour}/traces_${batchId}.binpb`, queueIds: [1n, 5n] },
    { key: `traces/tenant=b/${hour}/traces_${batchId}.binpb`, queueIds: [2n] },
    { key: `traces/tenant=a/${hour}/traces_${batchId}.binpb.gz`, queueIds: [3n] },
    { key: `logs/tenant=a/${hour}/logs_${batchId}.binpb`, queueIds: [4n] },
  ])
})

test('profiles are stored one by one', () => {
  const rows = [row(11n, 'b', { signal: 'profiles' }), row(9n, 'a', { signal: 'profiles' })]
  const objects = objectsOfBatch(batchId, rows).map(({ key, body }) => ({ key, body: body.toString() }))
  expect(objects).toEqual([
    { key: `profiles/tenant=default/${hour}/profiles_${batchId}_9.binpb`, body: 'a' },
    { key: `profiles/tenant=default/${hour}/profiles_${batchId}_11.binpb`, body: 'b' },
  ])
})

test('at most 64 services are named, and a batch without times has none', () => {
  const services = (from: number) => Array.from({ length: 60 }, (_, number) => `s${from + number}`)
  const rows = [
    row(1n, 'a', { summary: { services: services(0) } }),
    row(2n, 'b', { summary: { services: services(30) } }),
  ]
  const [object] = objectsOfBatch(batchId, rows)
  expect(object?.services).toEqual([...services(0), 's60', 's61', 's62', 's63'])
  expect([object?.minTimeUnixNano, object?.maxTimeUnixNano]).toEqual([undefined, undefined])
})

test('no rows are no objects', () => {
  expect(objectsOfBatch(batchId, [])).toEqual([])
})
