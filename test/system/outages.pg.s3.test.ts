import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { fakeS3 } from '../sink/fake-s3.ts'
import { type RunningMinio, startMinio } from '../support/minio.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import {
  minioClient,
  post,
  type RunningSluice,
  readBucket,
  spanRequest,
  startSluice,
  storeSettings,
} from './sluice.ts'

let minio: RunningMinio
let database: TestDatabase
let sql: Sql
let sluice: RunningSluice | undefined

beforeAll(async () => {
  minio = await startMinio()
})
afterAll(() => minio.stop())
beforeEach(async () => {
  database = await cloneDatabase()
  sql = database.open()
})
afterEach(async () => {
  if (sluice !== undefined) {
    expect(await sluice.process.terminate(), sluice.process.lastWords()).toBe(0)
    expect(sluice.process.strayLines).toEqual([])
    sluice = undefined
  }
  await closePool(sql, 1000)
  await database.drop()
})

const retries = {
  RETRY_BASE_MS: '20',
  RETRY_MAX_MS: '200',
  CIRCUIT_RESET_SECONDS: '1',
  STAGING_MAX_BACKLOG: '100000',
}

/** Sends spans on a few connections until told to stop; answers the names by status, 0 for no answer. */
async function sendUntil(url: string, stop: AbortSignal): Promise<Map<number, string[]>> {
  const answers = new Map<number, string[]>()
  const lane = async (number: number) => {
    for (let i = 0; !stop.aborted; i++) {
      const name = `<${number}-${i}>`
      const status = await post(url, spanRequest(name)).catch(() => 0)
      answers.set(status, [...(answers.get(status) ?? []), name])
    }
  }
  await Promise.all([0, 1, 2, 3].map(lane))
  return answers
}

const waiting = async () => (await sql`SELECT count(*)::int AS rows FROM ingestion_queue`)[0]?.rows

/** Every accepted name is in the catalogued objects exactly once, and no object lies there that nobody names. */
async function expectStoredOnce(bucket: string, accepted: readonly string[], doubtful: readonly string[]) {
  await expect.poll(waiting, { timeout: 30_000, interval: 20 }).toBe(0)
  const catalogued = (await sql<{ key: string }[]>`SELECT key FROM stored_object ORDER BY key`).map(
    ({ key }) => key,
  )
  const bodies = await readBucket(minioClient(minio), bucket)
  expect([...bodies.keys()].sort()).toEqual(catalogued)
  const names = [...bodies.values()].flatMap((body) => body.toString('latin1').match(/<\d+-\d+>/g) ?? [])
  const stored = new Set(names)
  expect(names.length).toBe(stored.size)
  expect(accepted.filter((name) => !stored.has(name))).toEqual([])
  const known = new Set([...accepted, ...doubtful])
  expect(names.filter((name) => !known.has(name))).toEqual([])
  expect(await sql`SELECT 1 FROM dead_letter`).toHaveLength(0)
}

test('G9: sessions of every pool that are ended ten times a second for a minute lose nothing, store nothing twice, and crash nothing', async () => {
  sluice = await startSluice({
    DATABASE_URL: database.databaseUrl,
    ...storeSettings(minio, 'chaos'),
    ...retries,
    LEASE_SECONDS: '2',
  })
  const stop = new AbortController()
  const sending = sendUntil(sluice.url, stop.signal)
  for (const until = performance.now() + 60_000; performance.now() < until; ) {
    await sql`
      SELECT pg_terminate_backend(pid), pg_sleep(0.001) FROM pg_stat_activity
      WHERE datname = current_database() AND application_name LIKE 'sluice %'`
    await sql`SELECT pg_sleep(0.1)`
  }
  stop.abort()
  const answers = await sending
  expect([...answers.keys()].filter((status) => ![200, 503].includes(status))).toEqual([])
  expect(answers.get(200)?.length).toBeGreaterThan(20)
  await expectStoredOnce('chaos', answers.get(200) ?? [], answers.get(503) ?? [])
}, 180_000)

test('G7: a database that turns read-only answers 503, and goes on without a restart when it takes writes again', async () => {
  sluice = await startSluice({
    DATABASE_URL: database.databaseUrl,
    ...storeSettings(minio, 'failover'),
    ...retries,
    LEASE_SECONDS: '2',
  })
  const name = database.location.database
  const writing = database.open({ connections: 1 })
  await writing.unsafe('SET default_transaction_read_only = off')
  const stop = new AbortController()
  const sending = sendUntil(sluice.url, stop.signal)
  await expect
    .poll(async () => (await sql`SELECT 1 FROM stored_object`).length, { timeout: 10_000 })
    .toBeGreaterThan(2)
  await writing.unsafe(`ALTER DATABASE ${name} SET default_transaction_read_only = on`)
  await writing`
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = ${name} AND application_name LIKE 'sluice %'`
  await expect.poll(() => post(sluice?.url ?? '', spanRequest('<99-1>')), { timeout: 10_000 }).toBe(503)
  await sql`SELECT pg_sleep(3)`
  await writing.unsafe(`ALTER DATABASE ${name} RESET default_transaction_read_only`)
  await expect.poll(() => post(sluice?.url ?? '', spanRequest('<99-2>')), { timeout: 10_000 }).toBe(200)
  stop.abort()
  const answers = await sending
  await closePool(writing, 1000)
  const doubtful = [...(answers.get(503) ?? []), '<99-1>']
  await expectStoredOnce('failover', [...(answers.get(200) ?? []), '<99-2>'], doubtful)
}, 120_000)

test('H1: a store that answers SlowDown buries nothing and blames nobody, and what waits is stored when it is well', async () => {
  await using slow = await fakeS3((_request, response) => {
    response.writeHead(503, { 'content-type': 'application/xml' })
    response.end(
      '<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your rate</Message></Error>',
    )
  })
  sluice = await startSluice({
    DATABASE_URL: database.databaseUrl,
    ...storeSettings(minio, 'slow'),
    ...retries,
    S3_ENDPOINT: slow.endpoint.origin,
    MAX_ATTEMPTS: '1',
  })
  for (let i = 0; i < 5; i++) expect(await post(sluice.url, spanRequest(`<1-${i}>`))).toBe(200)
  await expect
    .poll(async () => (await sql`SELECT outages FROM ingestion_batch`)[0]?.outages ?? 0, { timeout: 20_000 })
    .toBeGreaterThan(10)
  const batches = await sql`SELECT attempts, last_error FROM ingestion_batch`
  expect(batches.map(({ attempts }) => attempts)).toEqual(batches.map(() => 0))
  expect(batches[0]?.last_error).toContain('SlowDown')
  expect(await waiting()).toBe(5)
  expect(sluice.process.countEvents('batch_persist_failed', 'outage')).toBeGreaterThan(0)
  await sluice.process.terminate()
  sluice = await startSluice({
    DATABASE_URL: database.databaseUrl,
    ...storeSettings(minio, 'slow'),
    ...retries,
  })
  await expectStoredOnce(
    'slow',
    [0, 1, 2, 3, 4].map((i) => `<1-${i}>`),
    [],
  )
}, 120_000)
