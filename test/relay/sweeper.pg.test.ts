import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { systemClock } from '../../src/foundation/clock.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { findAbandoned, forgetAbandoned, markSwept } from '../../src/queue/abandoned.ts'
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
  sql = database.open()
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
    findAbandoned: (ageSeconds, limit) => findAbandoned(sql, ageSeconds, limit),
    markSwept: (id) => markSwept(sql, id),
    forgetAbandoned: (id) => forgetAbandoned(sql, id),
    store,
    keyPrefix: '',
    leaseSeconds: 60,
    clock,
    random: () => 0,
    log: createLogger({ level: 'silent', clock }),
    metrics: createMetrics(),
  })
})

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
  expect(await sweeper.sweep(never)).toBe(0)
  await aMinuteLater()
  expect(await sweeper.sweep(never)).toBe(1)
  expect(store.objects.size).toBe(0)
  store.objects.set(key, Buffer.from('late'))
  expect(await sweeper.sweep(never)).toBe(0)
  await aMinuteLater()
  expect(await sweeper.sweep(never)).toBe(1)
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
  expect(await sweeper.sweep(never)).toBe(0)
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
  expect(await sweeper.sweep(never)).toBe(0)
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
  expect(await sweeper.sweep(never)).toBe(0)
  store.remove = remove
  expect(await sweeper.sweep(never)).toBe(1)
})
