import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { systemClock } from '../../src/foundation/clock.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { sweepQueue } from '../../src/queue/abandoned.ts'
import { Sweeper } from '../../src/relay/sweeper.ts'
import { objectKey } from '../../src/sink/object-key.ts'
import { createLogger } from '../../src/telemetry/log.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { FaultyStore } from './fixture.ts'

let database: TestDatabase
let sql: Sql
let store: FaultyStore
let sweeper: Sweeper
const batchId = '01a210cc-5850-7602-b479-946708daf8e1'
const key = objectKey({ prefix: '', signal: 'traces', tenant: 'default', encoding: 'gzip', batchId })
const never = new AbortController().signal

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open({ connections: 1 })
})
afterAll(async () => {
  await closePool(sql, 1000)
  await database.drop()
})
beforeEach(async () => {
  await sql`TRUNCATE abandoned_batch, stored_object`
  store = new FaultyStore()
  const clock = systemClock
  sweeper = new Sweeper({
    queue: sweepQueue(sql),
    store,
    keyPrefix: '',
    leaseSeconds: 60,
    clock,
    random: () => 0,
    log: createLogger({ level: 'silent', clock }),
    metrics: createMetrics(),
  })
})

const terminate = (by: Sql, name: string) => by`
  SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE application_name = ${name} AND datname = current_database()`

const sweptBy = async (one: Sweeper) => (await one.sweep(never)).deletedKeys.length

async function abandon(keys: readonly string[]): Promise<void> {
  await sql.unsafe('INSERT INTO abandoned_batch (batch_id, keys) VALUES ($1, $2::text[])', [
    batchId,
    `{${keys.join(',')}}`,
  ])
}

/** As if everything had happened a minute earlier. */
async function aMinuteLater(): Promise<void> {
  await sql`
    UPDATE abandoned_batch
    SET abandoned_at = abandoned_at - interval '61 s', swept_at = swept_at - interval '61 s'`
}

test('an abandoned object stays for two put deadlines, is deleted, and a late put is found at a second look', async () => {
  store.objects.set(key, Buffer.from('left over'))
  await abandon([key])
  expect(await sweptBy(sweeper)).toBe(0)
  await aMinuteLater()
  expect(await sweptBy(sweeper)).toBe(1)
  expect(store.objects.size).toBe(0)
  store.objects.set(key, Buffer.from('late'))
  expect(await sweptBy(sweeper)).toBe(0)
  await aMinuteLater()
  expect(await sweptBy(sweeper)).toBe(1)
  expect(store.objects.size).toBe(0)
  expect(await sql`SELECT 1 FROM abandoned_batch`).toHaveLength(0)
})

test('an object that the catalog names is never deleted, whatever was abandoned', async () => {
  store.objects.set(key, Buffer.from('part of the data'))
  await sql.unsafe(
    `INSERT INTO stored_object (object_id, batch_id, items, bytes, requests, signal, encoding, tenant, bucket, key,
      checksum, services, queue_ids, offsets)
     VALUES ($1, $1, 1, 1, 1, 1, 1, 'default', 'b', $2, 'c', '{}', '{1}', '{0}')`,
    [batchId, key],
  )
  await abandon([key])
  await aMinuteLater()
  expect(await sweptBy(sweeper)).toBe(0)
  expect([...store.objects.keys()]).toEqual([key])
})

test('a key that is not one of this batch is left alone', async () => {
  const foreign = objectKey({
    prefix: '',
    signal: 'traces',
    tenant: 'default',
    encoding: 'gzip',
    batchId: '01a210cc-5850-7602-b479-946708daf8e2',
  })
  for (const name of [foreign, 'something/else', '../up']) store.objects.set(name, Buffer.from('not ours'))
  await abandon([foreign, 'something/else', '../up'])
  await aMinuteLater()
  expect(await sweptBy(sweeper)).toBe(0)
  expect(store.objects.size).toBe(3)
  // It stays written down for whoever finds out why.
  expect(await sql`SELECT 1 FROM abandoned_batch WHERE swept_at IS NULL`).toHaveLength(1)
})

test('a store that is away keeps the batch for another look', async () => {
  store.objects.set(key, Buffer.from('left over'))
  await abandon([key])
  await aMinuteLater()
  const remove = store.remove
  store.remove = async () => {
    throw new Error('away')
  }
  expect(await sweptBy(sweeper)).toBe(0)
  store.remove = remove
  expect(await sweptBy(sweeper)).toBe(1)
})

test('over a hundred refused batches neither keep the sweeper busy for ever nor hide those behind them', async () => {
  const id = (number: number) => `01a210cc-5850-7602-b479-${String(number).padStart(12, '0')}`
  for (let number = 0; number < 250; number++) {
    await sql.unsafe("INSERT INTO abandoned_batch (batch_id, keys) VALUES ($1, '{other/prefix}')", [
      id(number),
    ])
  }
  store.objects.set(key, Buffer.from('left over'))
  await abandon([key])
  await aMinuteLater()
  expect(await sweeper.sweep(never)).toEqual({ isLocked: true, deletedKeys: [key], refused: 250, failed: 0 })
})

test('a store that is away for a day is asked for three batches a look, and not for all that was abandoned', async () => {
  const id = (number: number) => `01a210cc-5850-7602-b479-${String(number).padStart(12, '0')}`
  for (let number = 0; number < 150; number++) {
    const left = objectKey({ prefix: '', signal: 'logs', tenant: 'a', encoding: 'gzip', batchId: id(number) })
    await sql.unsafe('INSERT INTO abandoned_batch (batch_id, keys) VALUES ($1, ARRAY[$2])', [
      id(number),
      left,
    ])
    store.objects.set(left, Buffer.from('left over'))
  }
  await sql`UPDATE abandoned_batch SET abandoned_at = abandoned_at - interval '1 day'`
  const { stat } = store
  store.stat = async () => {
    throw new Error('away')
  }
  expect(await sweeper.sweep(never)).toMatchObject({ deletedKeys: [], failed: 3 })
  store.stat = stat
  expect(await sweeper.sweep(never)).toMatchObject({ failed: 0, deletedKeys: { length: 150 } })
  expect(store.objects.size).toBe(0)
})

test('while one sweeps, no other does; the lock ends with the session of whoever had it', async () => {
  store.objects.set(key, Buffer.from('left over'))
  await abandon([key])
  await aMinuteLater()
  const others = database.open({ name: 'other sweeper', connections: 1 })
  const other = sweepQueue(others)
  expect(await other.lock()).toBe(true)
  expect(await sweeper.sweep(never)).toEqual({ isLocked: false, deletedKeys: [], refused: 0, failed: 0 })
  await terminate(sql, 'other sweeper')
  await expect.poll(async () => (await sweeper.sweep(never)).isLocked, { interval: 20 }).toBe(true)
  expect(store.objects.size).toBe(0)
  await closePool(others, 1000)
})

test('a sweeper that lost its session and with it the lock deletes nothing', async () => {
  store.objects.set(key, Buffer.from('left over'))
  await abandon([key])
  await aMinuteLater()
  const others = database.open({ name: 'other sweeper', connections: 1 })
  const other = sweepQueue(others)
  const { stat } = store
  store.stat = async (name) => {
    await other.unlock()
    await terminate(others, 'test')
    while (!(await other.lock())) await others`SELECT pg_sleep(0.01)`
    return await stat.call(store, name)
  }
  const sweep = await sweeper.sweep(never).catch(() => undefined)
  expect(sweep?.deletedKeys ?? []).toEqual([])
  expect([...store.objects.keys()]).toEqual([key])
  await closePool(others, 1000)
})
