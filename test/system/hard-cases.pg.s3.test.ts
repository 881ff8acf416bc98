import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { type RunningMinio, startMinio } from '../support/minio.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { decodeWithPython, hasPython } from '../support/python.ts'
import {
  minioClient,
  post,
  type RunningSluice,
  readBucket,
  spanRequest,
  startSluice,
  storeSettings,
} from './sluice.ts'

const bucket = 'hard-cases'
let database: TestDatabase
let minio: RunningMinio
let sluice: RunningSluice
let sql: Sql

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open()
  minio = await startMinio()
  sluice = await startSluice({
    DATABASE_URL: database.databaseUrl,
    ...storeSettings(minio, bucket),
    // A batch waits for its 25 requests, so that the good and the bad ones share it.
    BATCH_FLUSH_INTERVAL_MS: '3000',
    STAGING_MAX_BACKLOG: '100000',
  })
})
afterAll(async () => {
  expect(await sluice.process.terminate()).toBe(0)
  expect(sluice.process.strayLines).toEqual([])
  expect(sluice.process.log.filter(({ level }) => level === 'error')).toEqual([])
  await closePool(sql, 1000)
  await database.drop()
  await minio.stop()
})

interface ObjectRow {
  key: string
  encoding: number
  requests: number
  services: string[]
  min_time: Date | null
  max_time: Date | null
}

/** What these requests left behind, when nothing waits any more. */
async function storeAll(
  requests: readonly Parameters<typeof post>[1][],
): Promise<{ statuses: number[]; rows: ObjectRow[] }> {
  await sql`TRUNCATE stored_object, trace_index`
  const statuses = await Promise.all(requests.map((request) => post(sluice.url, request)))
  const waiting = async () => (await sql`SELECT count(*)::int AS rows FROM ingestion_queue`)[0]?.rows
  await expect.poll(waiting, { timeout: 30_000, interval: 20 }).toBe(0)
  const rows = await sql<ObjectRow[]>`
    SELECT key, encoding, requests, to_jsonb(services) AS services, min_time, max_time
    FROM stored_object ORDER BY encoding`
  return { statuses, rows: [...rows] }
}

async function namesIn(rows: readonly ObjectRow[]): Promise<string[]> {
  const bodies = await readBucket(minioClient(minio), bucket)
  return rows
    .flatMap(({ key, encoding }) => {
      const body = bodies.get(key) ?? Buffer.alloc(0)
      return (encoding === 1 ? gunzipSync(body) : body).toString('latin1').match(/<[a-z0-9 -]+>/g) ?? []
    })
    .sort()
}

const good = (count: number) =>
  Array.from({ length: count }, (_, i) => spanRequest(`<good ${String(i).padStart(2, '0')}>`))
const goodNames = (count: number) =>
  Array.from({ length: count }, (_, i) => `<good ${String(i).padStart(2, '0')}>`)
const gzipped = (name: string, after: Buffer = Buffer.alloc(0)) => ({
  ...spanRequest(name),
  contentType: 'application/x-protobuf',
  contentEncoding: 'gzip',
  body: Buffer.concat([gzipSync(protobufFromJson('traces', spanRequest(name).body)), after]),
})

test('B1: a NUL in a service name is kept in the object, replaced in the catalog, and holds up nobody', async () => {
  const { statuses, rows } = await storeAll([...good(24), spanRequest('<nul>', { service: 'a\0b' })])
  expect(new Set(statuses)).toEqual(new Set([200]))
  expect(rows).toMatchObject([{ requests: 25, services: expect.arrayContaining(['test', 'a\ufffdb']) }])
  expect(await namesIn(rows)).toEqual([...goodNames(24), '<nul>'])
  const bodies = await readBucket(minioClient(minio), bucket)
  expect(bodies.get(rows[0]?.key ?? '')?.includes('a\0b')).toBe(true)
})

test('B2: huge and countless service names and trace ids are cut in the catalog and stored whole', async () => {
  const resource = (service: string, index: number) => ({
    resource: { attributes: [{ key: 'service.name', value: { stringValue: service } }] },
    scopeSpans: [
      {
        spans: [
          { traceId: index.toString(16).padStart(32, '0'), spanId: 'eee19b7ec3c1b174', name: '<many>' },
        ],
      },
    ],
  })
  const many = { resourceSpans: Array.from({ length: 20_000 }, (_, i) => resource(`service-${i}`, i + 1)) }
  const { statuses, rows } = await storeAll([
    ...good(20),
    spanRequest('<long>', { service: 'x'.repeat(10_000) }),
    spanRequest('<longer>', { service: 'y'.repeat(1_000_000) }),
    { ...spanRequest(''), body: Buffer.from(JSON.stringify(many)) },
  ])
  expect(new Set(statuses)).toEqual(new Set([200]))
  expect(rows.reduce((sum, { requests }) => sum + requests, 0)).toBe(23)
  expect(Math.max(...rows.map(({ services }) => services.length))).toBeLessThanOrEqual(64)
  expect(
    Math.max(...rows.flatMap(({ services }) => services.map(({ length }) => length))),
  ).toBeLessThanOrEqual(256)
  expect((await namesIn(rows)).filter((name) => name === '<many>').length).toBe(20_000)
  const [indexed] = await sql`SELECT count(*)::int AS rows FROM trace_index`
  expect(indexed?.rows).toBeLessThanOrEqual(10_000 + 22)
})

test('B6: times that do not fit leave the bytes alone and are left out of the catalog', async () => {
  const times = [
    ['0', '0'],
    ['18446744073709551615', '18446744073709551615'],
    ['9223372036854775808', '9223372036854775808'],
    ['1544712661000000000', '1544712660999999999'],
  ] as const
  const { statuses, rows } = await storeAll(
    times.map(([startTimeUnixNano, endTimeUnixNano], index) =>
      spanRequest(`<time ${index}>`, { startTimeUnixNano, endTimeUnixNano }),
    ),
  )
  expect(statuses).toEqual([200, 200, 200, 200])
  expect(rows).toMatchObject([
    { requests: 4, min_time: new Date(1_544_712_660_999), max_time: new Date(1_544_712_661_000) },
  ])
  expect(await namesIn(rows)).toEqual(['<time 0>', '<time 1>', '<time 2>', '<time 3>'])
})

test('C1: bytes after the end of a gzip body never hide or spoil its neighbours in the object', async () => {
  const { statuses, rows } = await storeAll([
    gzipped('<before>'),
    gzipped('<zeros>', Buffer.alloc(8)),
    gzipped('<garbage>', Buffer.concat([Buffer.alloc(8), gzipSync('garbage')])),
    gzipped('<newline>', Buffer.from('\n')),
    gzipped('<after>'),
  ])
  expect(statuses[0]).toBe(200)
  expect(statuses[4]).toBe(200)
  const accepted = ['<before>', '<zeros>', '<garbage>', '<newline>', '<after>'].filter(
    (_, i) => statuses[i] === 200,
  )
  // The two good ones can be read with Node, which stops at the first thing that is no member.
  expect(await namesIn(rows)).toEqual(accepted.sort())
  expect(statuses.slice(1, 4)).toEqual([400, 400, 400])
})

test('A1, B10: a cut-off emoji in JSON and a bad byte in protobuf leave an object that Python reads', async () => {
  const cut = spanRequest('<cut>')
  const bad = protobufFromJson('traces', spanRequest('<bad ->').body)
  const badByte = Buffer.from(bad)
  badByte[bad.indexOf('<bad ->') + 5] = 0xff
  const { statuses, rows } = await storeAll([
    ...good(3),
    { ...cut, body: Buffer.from(cut.body.toString().replace('<cut>', 'ok\\ud83d')) },
    { ...cut, contentType: 'application/x-protobuf', body: badByte },
    {
      ...cut,
      contentType: 'application/x-protobuf',
      contentEncoding: 'zstd',
      body: zstdCompressSync(badByte),
    },
  ])
  expect(statuses).toEqual([200, 200, 200, 200, 200, 200])
  expect(rows.map(({ requests, encoding }) => ({ requests, encoding }))).toEqual([
    { requests: 5, encoding: 0 },
    { requests: 1, encoding: 1 },
  ])
  if (!hasPython()) return
  const bodies = await readBucket(minioClient(minio), bucket)
  const objects = rows.map(({ key, encoding }) => ({
    signal: 'traces' as const,
    encoding: encoding === 1 ? ('gzip' as const) : ('identity' as const),
    body: bodies.get(key) ?? Buffer.alloc(0),
  }))
  const decoded = JSON.stringify(await decodeWithPython(objects))
  expect(decoded).toContain('ok\ufffd')
  expect(decoded.split('<bad \ufffd>').length - 1).toBe(2)
})

test('F2: equal requests are not taken for repeats: the same bytes 1,000 times are stored 1,000 times', async () => {
  const { statuses, rows } = await storeAll(Array.from({ length: 1000 }, () => spanRequest('<same>')))
  expect(statuses.filter((status) => status === 200).length).toBe(1000)
  expect(rows.reduce((sum, { requests }) => sum + requests, 0)).toBe(1000)
  expect((await namesIn(rows)).length).toBe(1000)
}, 60_000)
