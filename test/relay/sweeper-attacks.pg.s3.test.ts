import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { systemClock } from '../../src/foundation/clock.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { sweepQueue } from '../../src/queue/abandoned.ts'
import type { Batch } from '../../src/queue/batch.ts'
import { relayQueue } from '../../src/queue/relay-queue.ts'
import type { CatalogEntry } from '../../src/queue/settle.ts'
import { type Sweep, Sweeper } from '../../src/relay/sweeper.ts'
import { openMinioStore } from '../../src/sink/minio-store.ts'
import { checksumOf, objectKey } from '../../src/sink/object-key.ts'
import type { ObjectStore } from '../../src/sink/object-store.ts'
import { createLogger } from '../../src/telemetry/log.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { row, stageAll } from '../queue/rows.ts'
import { type RunningMinio, startMinio } from '../support/minio.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'

const tables = ['ingestion_queue', 'ingestion_batch', 'abandoned_batch', 'stored_object', 'dead_letter']
const never = new AbortController().signal
let minio: RunningMinio
let database: TestDatabase
let sql: Sql
let sweeping: Sql
let store: ObjectStore
let buckets = 0

beforeAll(async () => {
  minio = await startMinio()
  database = await cloneDatabase()
  sql = database.open()
  sweeping = database.open({ name: 'sweeping', connections: 1 })
})
afterAll(async () => {
  await closePool(sql, 1000)
  await closePool(sweeping, 1000)
  await database.drop()
  await minio.stop()
})
beforeEach(async () => {
  await sql.unsafe(`TRUNCATE ${tables.join(', ')}, trace_index`)
  await store?.close()
  store = openMinioStore({ ...minio, bucket: `attacks-${++buckets}`, region: undefined })
  await store.prepare()
})

const queueOf = (pool: Sql) =>
  relayQueue({ claims: pool, settles: pool, owner: 'test', leaseSeconds: 60, clock: systemClock })

function sweepWith(
  objects: ObjectStore,
  changes: Partial<{ pool: Sql; keyPrefix: string }> = {},
): Promise<Sweep> {
  const { pool = sweeping, keyPrefix = '' } = changes
  return new Sweeper({
    queue: sweepQueue(pool),
    store: objects,
    keyPrefix,
    leaseSeconds: 60,
    clock: systemClock,
    random: () => 0,
    log: createLogger({ level: 'silent', clock: systemClock }),
    metrics: createMetrics(),
  }).sweep(never)
}

async function claim(names: readonly string[], queue = queueOf(sql), on = database): Promise<Batch> {
  await stageAll(
    on,
    names.map((name) => row(name)),
  )
  const batch = await queue.claimBatch({ rowsMax: 25, bytesMax: 1_000_000, firstAnySize: true })
  if (batch === undefined) throw new Error('nothing was claimed')
  return batch
}

async function takeOver(queue = queueOf(sql)): Promise<Batch> {
  const batch = await queue.takeOverBatch({ rowsMax: 25, bytesMax: 1_000_000 })
  if (batch === undefined) throw new Error('nothing was taken over')
  return batch
}

const keyOf = (batch: Batch, prefix = '') =>
  objectKey({ prefix, signal: 'traces', tenant: 'default', encoding: 'identity', batchId: batch.batchId })
const bodyOf = ({ rows }: Batch) => Buffer.concat(rows.map(({ payload }) => payload))

async function put(batch: Batch, prefix = ''): Promise<string> {
  await store.put(keyOf(batch, prefix), bodyOf(batch), checksumOf(bodyOf(batch)))
  return keyOf(batch, prefix)
}

function entryOf(batch: Batch, prefix = ''): CatalogEntry {
  const body = bodyOf(batch)
  return {
    bucket: store.bucket,
    key: keyOf(batch, prefix),
    tenant: 'default',
    signal: 'traces',
    encoding: 'identity',
    requests: batch.rows.length,
    items: batch.rows.length,
    bytes: body.length,
    minTimeUnixNano: undefined,
    maxTimeUnixNano: undefined,
    services: [],
    queueIds: batch.rows.map(({ id }) => id),
    offsets: batch.rows.map((_, index) => index),
    traceHashes: [],
    checksum: checksumOf(body),
  }
}

async function keysIn(objects: ObjectStore): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of objects.list('')) keys.push(key)
  return keys.sort()
}

/** As if everything in the database had happened so much earlier. */
async function later(interval: string, pool = sql): Promise<void> {
  await pool.unsafe(`UPDATE abandoned_batch
    SET abandoned_at = abandoned_at - interval '${interval}', swept_at = swept_at - interval '${interval}'`)
  await pool.unsafe(`UPDATE ingestion_batch SET lease_until = lease_until - interval '${interval}',
    next_attempt_at = next_attempt_at - interval '${interval}'`)
}

/** Keeps the tables as they are; the answer puts them back, as a restored backup does. */
async function backUp(): Promise<() => Promise<void>> {
  await sql.unsafe(`DROP SCHEMA IF EXISTS backup CASCADE; CREATE SCHEMA backup;
    ${tables.map((table) => `CREATE TABLE backup.${table} AS TABLE ${table};`).join('\n')}`)
  return async () => {
    const restored = tables.map(
      (table) => `INSERT INTO ${table} OVERRIDING SYSTEM VALUE SELECT * FROM backup.${table};`,
    )
    await sql.unsafe(`TRUNCATE ${tables.join(', ')}; ${restored.join('\n')}`)
  }
}

test('a database that is restored, or fails over, while the sweeper is about to delete keeps what it has come to name', async () => {
  const before = await claim(['a', 'b'])
  await put(before)
  const restore = await backUp()
  await queueOf(sql).splitBatch(before, [keyOf(before)], 'refused')
  await later('2 minutes')
  const halfway: ObjectStore = Object.create(store)
  halfway.stat = async (key, signal) => {
    // The sweeper has found the key; before it deletes, the split never happened, and the batch is stored.
    await restore()
    await later('2 minutes')
    const again = await takeOver()
    await put(again)
    expect(await queueOf(sql).completeBatch(again, [entryOf(again)])).toBe('settled')
    return await store.stat(key, signal)
  }
  expect(await sweepWith(halfway)).toEqual({ isLocked: true, deletedKeys: [], refused: 1, failed: 0 })
  expect(await keysIn(store)).toEqual([keyOf(before)])
})

test('the same while the restored batch is not stored yet, but in hand', async () => {
  const before = await claim(['a', 'b'])
  await put(before)
  const restore = await backUp()
  await queueOf(sql).releaseBatch(before, [keyOf(before)])
  await later('2 minutes')
  const halfway: ObjectStore = Object.create(store)
  halfway.stat = async (key, signal) => {
    await restore()
    return await store.stat(key, signal)
  }
  expect(await sweepWith(halfway)).toMatchObject({ deletedKeys: [], refused: 1 })
  expect(await keysIn(store)).toEqual([keyOf(before)])
})

test('after a restore of yesterday the objects of the lost history stay, and what both histories gave up goes', async () => {
  const givenUp = await claim(['a', 'b'])
  await put(givenUp)
  await queueOf(sql).releaseBatch(givenUp, [keyOf(givenUp)])
  const restore = await backUp()
  const lost = await claim([])
  await put(lost)
  await queueOf(sql).completeBatch(lost, [entryOf(lost)])
  const acceptedAfter = await claim(['only in the lost history'])
  await put(acceptedAfter)
  await queueOf(sql).completeBatch(acceptedAfter, [entryOf(acceptedAfter)])

  await restore()
  const again = await claim([])
  expect(again.rows.map(({ payload }) => payload.toString())).toEqual(['a', 'b'])
  await put(again)
  await queueOf(sql).completeBatch(again, [entryOf(again)])
  await later('1 day')
  expect((await sweepWith(store)).deletedKeys).toEqual([keyOf(givenUp)])
  await later('1 day')
  expect((await sweepWith(store)).deletedKeys).toEqual([])
  expect(await keysIn(store)).toEqual([keyOf(lost), keyOf(acceptedAfter), keyOf(again)].sort())
})

test('after an outage of a day the batches that waited are stored, and only what was given up before is deleted', async () => {
  const waiting = await claim(['a'])
  await put(waiting)
  const outage = { countAttempt: false, countOutage: true, delayMs: 60_000, error: 'the answer was lost' }
  await queueOf(sql).failBatch(waiting, outage)
  const frozen = await claim(['b'])
  await put(frozen)
  const givenUp = await claim(['c'])
  await put(givenUp)
  await queueOf(sql).releaseBatch(givenUp, [keyOf(givenUp)])
  await later('1 day')
  expect((await sweepWith(store)).deletedKeys).toEqual([keyOf(givenUp)])
  for (const _ of [waiting, frozen]) {
    const again = await takeOver()
    await put(again)
    expect(await queueOf(sql).completeBatch(again, [entryOf(again)])).toBe('settled')
  }
  await later('1 day')
  expect((await sweepWith(store)).deletedKeys).toEqual([])
  expect(await keysIn(store)).toEqual([keyOf(waiting), keyOf(frozen)].sort())
})

test('a worker that wakes after a day and puts after the second look gets nothing deleted and nothing named', async () => {
  const frozen = await claim(['a', 'b'])
  await later('1 day')
  const taken = await takeOver()
  await queueOf(sql).splitBatch(taken, [keyOf(taken)], 'its third holder vanished')
  const halves = [await takeOver(), await takeOver()]
  for (const half of halves) {
    await put(half)
    await queueOf(sql).completeBatch(half, [entryOf(half)])
  }
  for (const _ of ['first look', 'second look']) {
    await later('1 day')
    expect((await sweepWith(store)).deletedKeys).toEqual([])
  }
  expect(await sql`SELECT FROM abandoned_batch`).toHaveLength(0)
  await put(frozen)
  expect(await queueOf(sql).completeBatch(frozen, [entryOf(frozen)])).toBe('forgotten')
  await later('1 day')
  expect((await sweepWith(store)).deletedKeys).toEqual([])
  expect(await keysIn(store)).toEqual([keyOf(frozen), ...halves.map((half) => keyOf(half))].sort())
})

test('two databases on one bucket and prefix: each deletes what its own batches left, and strangers stay', async () => {
  const second = await cloneDatabase()
  const [theirs, theirSweeping] = [second.open(), second.open({ connections: 1 })]
  try {
    const stored = await claim(['theirs'], queueOf(theirs), second)
    await put(stored)
    await queueOf(theirs).completeBatch(stored, [entryOf(stored)])
    const inHand = await claim(['in their hands'], queueOf(theirs), second)
    await put(inHand)
    const theirLeftOver = await claim(['left by them'], queueOf(theirs), second)
    await put(theirLeftOver)
    await queueOf(theirs).releaseBatch(theirLeftOver, [keyOf(theirLeftOver)])
    const ours = await claim(['left by us'])
    await put(ours)
    await queueOf(sql).releaseBatch(ours, [keyOf(ours)])
    const strangers = ['00012', 'a&b', 'a+b', 'a b', 'é', '%2e'].map(
      (tenant) => `${keyOf(ours).replace('tenant=default', `tenant=${tenant}`)}`,
    )
    for (const key of strangers) await store.put(key, Buffer.from('x'), checksumOf(Buffer.from('x')))
    await later('1 day')
    await later('1 day', theirs)
    expect((await sweepWith(store)).deletedKeys).toEqual([keyOf(ours)])
    expect((await sweepWith(store, { pool: theirSweeping })).deletedKeys).toEqual([keyOf(theirLeftOver)])
    expect(await keysIn(store)).toEqual([keyOf(stored), keyOf(inHand), ...strangers].sort())
  } finally {
    await closePool(theirs, 1000)
    await closePool(theirSweeping, 1000)
    await second.drop()
  }
})

test('keys under another S3_PREFIX stay, and stay written down until it is set back', async () => {
  const batch = await claim(['a'])
  await put(batch, 'old/')
  await queueOf(sql).releaseBatch(batch, [keyOf(batch, 'old/')])
  await later('1 day')
  expect(await sweepWith(store, { keyPrefix: 'new/' })).toMatchObject({ deletedKeys: [], refused: 1 })
  expect(await keysIn(store)).toEqual([keyOf(batch, 'old/')])
  expect((await sweepWith(store, { keyPrefix: 'old/' })).deletedKeys).toEqual([keyOf(batch, 'old/')])
})
