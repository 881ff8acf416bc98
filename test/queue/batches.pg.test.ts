import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { findAbandoned, forgetAbandoned, markSwept } from '../../src/queue/abandoned.ts'
import type { Batch } from '../../src/queue/batch.ts'
import { claimBatch } from '../../src/queue/claim-batch.ts'
import { countBacklog } from '../../src/queue/count-backlog.ts'
import { countPending } from '../../src/queue/count-pending.ts'
import { hasDueBatch } from '../../src/queue/has-due-batch.ts'
import { PAYLOAD_ALONG_BYTES_MAX } from '../../src/queue/read-payloads.ts'
import { renewLeases } from '../../src/queue/renew-leases.ts'
import {
  absolveBatch,
  buryBatch,
  type CatalogEntry,
  completeBatch,
  failBatch,
  findSettled,
  releaseBatch,
  splitBatch,
} from '../../src/queue/settle.ts'
import { summariseQueue } from '../../src/queue/summarise-queue.ts'
import { takeOverBatch } from '../../src/queue/take-over-batch.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { row, stageAll } from './rows.ts'

let database: TestDatabase
let sql: Sql
const claimOptions = { owner: 'test', leaseSeconds: 60, rowsMax: 25, bytesMax: 1_000_000, firstAnySize: true }
const anyOne = { ...claimOptions, rowsMax: 1_000_000, bytesMax: 1_000_000_000 }

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open({ connections: 3, planCacheMode: 'force_generic_plan' })
})
afterAll(async () => {
  await closePool(sql, 1000)
  await database.drop()
})
beforeEach(async () => {
  await sql`TRUNCATE ingestion_queue, ingestion_batch, dead_letter, stored_object, trace_index, abandoned_batch`
})

async function claimed(names: readonly string[], changes: Partial<typeof claimOptions> = {}): Promise<Batch> {
  await stageAll(
    database,
    names.map((name) => row(name)),
  )
  const batch = await claimBatch(sql, { ...claimOptions, ...changes })
  if (batch === undefined) throw new Error('nothing was claimed')
  return batch
}

const names = (batch: Batch | undefined) => batch?.rows.map((one) => one.payload.toString())

async function count(table: string): Promise<number> {
  const [found] = await sql.unsafe<{ rows: number }[]>(`SELECT count(*)::int AS rows FROM ${table}`)
  return found?.rows ?? -1
}

async function counts() {
  return {
    queue: await count('ingestion_queue'),
    batches: await count('ingestion_batch'),
    objects: await count('stored_object'),
    dead: await count('dead_letter'),
    abandoned: await count('abandoned_batch'),
  }
}

function entryOf(batch: Batch, changes: Partial<CatalogEntry> = {}): CatalogEntry {
  return {
    tenant: 'default',
    signal: 'traces',
    encoding: 'identity',
    bucket: 'telemetry',
    key: `traces/${batch.batchId}`,
    checksum: 'sha256:0',
    requests: batch.rows.length,
    items: batch.rows.length,
    bytes: batch.bytes,
    minTimeUnixNano: 1_700_000_000_123_456_789n,
    maxTimeUnixNano: 1_700_000_001_000_000_000n,
    services: ['a "quoted" name', "it's $1 \\' \\\\", 'b'],
    queueIds: batch.rows.map((one) => one.id),
    offsets: batch.rows.map((_, index) => index),
    traceHashes: [BigInt64Array.of(-1n, 9_223_372_036_854_775_807n)],
    ...changes,
  }
}

async function expireLeases(): Promise<void> {
  await sql`UPDATE ingestion_batch SET lease_until = clock_timestamp() - interval '1 second'`
}

test('a claim takes rows in the order of their ids, as numbers and not as text', async () => {
  await sql`ALTER SEQUENCE ingestion_queue_id_seq RESTART WITH 8`
  const batch = await claimed(['8', '9', '10', '11'])
  expect(batch.rows.map((one) => one.id)).toEqual([8n, 9n, 10n, 11n])
  await sql`ALTER SEQUENCE ingestion_queue_id_seq RESTART WITH 99999998`
  const later = await claimed(['a', 'b', 'c', 'd'])
  expect(later.rows.map((one) => one.id)).toEqual([99_999_998n, 99_999_999n, 100_000_000n, 100_000_001n])
})

test('a claim ends at its bounds on rows and bytes, save for a first row of any size where that is asked for', async () => {
  await stageAll(database, [row('x'.repeat(100)), row('y'.repeat(100)), row('z'.repeat(100))])
  expect(names(await claimBatch(sql, { ...claimOptions, bytesMax: 10 }))).toEqual(['x'.repeat(100)])
  expect(await claimBatch(sql, { ...claimOptions, bytesMax: 99, firstAnySize: false })).toBeUndefined()
  expect(await claimBatch(sql, { ...claimOptions, bytesMax: 199 })).toMatchObject({ bytes: 100 })
  expect(names(await claimBatch(sql, { ...claimOptions, rowsMax: 5 }))).toEqual(['z'.repeat(100)])
  expect(await claimBatch(sql, claimOptions)).toBeUndefined()
})

test('a payload that is too large to come along is read in pieces, whether it is claimed or taken over', async () => {
  const sizes = [
    0,
    1,
    PAYLOAD_ALONG_BYTES_MAX,
    PAYLOAD_ALONG_BYTES_MAX + 1,
    1024 ** 2,
    1024 ** 2 + 1,
    3 * 1024 ** 2,
  ]
  const payloads = sizes.map((bytes) => randomBytes(bytes))
  await stageAll(
    database,
    payloads.map((payload) => ({ ...row('large'), payload })),
  )
  const bounds = { ...claimOptions, rowsMax: 25, bytesMax: 100_000_000 }
  const batch = await claimBatch(sql, bounds)
  expect(batch?.rows.map(({ payload }, place) => payload.equals(payloads[place] as Buffer))).toEqual(
    sizes.map(() => true),
  )
  await expireLeases()
  const taken = await takeOverBatch(sql, { ...anyOne, bytesMax: 100_000_000 })
  expect(taken?.rows.map(({ payload }, place) => payload.equals(payloads[place] as Buffer))).toEqual(
    sizes.map(() => true),
  )
})

test('claims at the same time never share a row', async () => {
  await stageAll(
    database,
    Array.from({ length: 300 }, (_, i) => row(`${i}`)),
  )
  const batches: Batch[] = []
  await Promise.all(
    Array.from({ length: 3 }, async () => {
      for (
        let batch = await claimBatch(sql, claimOptions);
        batch;
        batch = await claimBatch(sql, claimOptions)
      ) {
        batches.push(batch)
      }
    }),
  )
  const ids = batches.flatMap((batch) => batch.rows.map((one) => one.id))
  expect(ids.length).toBe(300)
  expect(new Set(ids).size).toBe(300)
})

test('a complete batch leaves the queue and enters the catalog', async () => {
  const batch = await claimed(['a', 'b'])
  expect(await completeBatch(sql, batch, [entryOf(batch)])).toBe('settled')
  expect(await counts()).toEqual({ queue: 0, batches: 0, objects: 1, dead: 0, abandoned: 0 })
  const [object] = await sql`
    SELECT batch_id, bucket, key, requests, items, bytes, to_jsonb(services) AS services, queue_ids::text,
      offsets::text, min_time::text, tenant, signal, encoding FROM stored_object`
  expect(object).toEqual({
    batch_id: batch.batchId,
    bucket: 'telemetry',
    key: `traces/${batch.batchId}`,
    requests: 2,
    items: 2n,
    bytes: 2n,
    services: ['a "quoted" name', "it's $1 \\' \\\\", 'b'],
    queue_ids: `{${batch.rows.map((one) => one.id).join(',')}}`,
    offsets: '{0,1}',
    min_time: expect.stringContaining('22:13:20.123456'),
    tenant: 'default',
    signal: 1,
    encoding: 0,
  })
  const traces = await sql`
    SELECT trace_hash, request_no FROM trace_index JOIN stored_object USING (object_id) ORDER BY 1`
  expect([...traces]).toEqual([
    { trace_hash: -1n, request_no: 0 },
    { trace_hash: 9_223_372_036_854_775_807n, request_no: 0 },
  ])
  expect(await findSettled(sql, batch.batchId)).toBe(true)
})

test('a batch that holds another number of rows than were written raises, and everything stays', async () => {
  const batch = await claimed(['a', 'b', 'c'])
  await sql`DELETE FROM ingestion_queue WHERE id = ${batch.rows[0]?.id ?? 0n}`
  await expect(completeBatch(sql, batch, [entryOf(batch)])).rejects.toMatchObject({ code: 'SL001' })
  expect(await counts()).toEqual({ queue: 2, batches: 1, objects: 0, dead: 0, abandoned: 0 })
  await expect(splitBatch(sql, batch, ['k'], 'e')).rejects.toMatchObject({ code: 'SL001' })
  await expect(releaseBatch(sql, batch, ['k'])).rejects.toMatchObject({ code: 'SL001' })
  const burial = { reason: 'data_refused', countAttempt: true, error: 'e' } as const
  await expect(buryBatch(sql, batch, ['k'], burial)).rejects.toMatchObject({ code: 'SL001' })
  expect(await counts()).toEqual({ queue: 2, batches: 1, objects: 0, dead: 0, abandoned: 0 })
})

test('a holder whose batch was taken over changes nothing, whatever it says', async () => {
  const stale = await claimed(['a', 'b'])
  await expireLeases()
  const taken = await takeOverBatch(sql, anyOne)
  expect(taken).toMatchObject({ batchId: stale.batchId, takeovers: 1, expectedRows: 2 })
  expect(taken?.leaseToken).not.toBe(stale.leaseToken)
  const before = await sql`SELECT * FROM ingestion_batch`
  const failure = { countAttempt: true, countOutage: true, delayMs: 1, error: 'stale' }
  expect(await completeBatch(sql, stale, [entryOf(stale)])).toBe('forgotten')
  expect(await failBatch(sql, stale, failure)).toBe('forgotten')
  expect(await splitBatch(sql, stale, ['k'], 'stale')).toBe('forgotten')
  expect(await releaseBatch(sql, stale, ['k'])).toBe('forgotten')
  const burial = { reason: 'data_refused', countAttempt: true, error: 'stale' } as const
  expect(await buryBatch(sql, stale, ['k'], burial)).toBe('forgotten')
  expect(await renewLeases(sql, [stale], 60)).toEqual(new Set())
  expect(await sql`SELECT * FROM ingestion_batch`).toEqual(before)
  expect(await counts()).toEqual({ queue: 2, batches: 1, objects: 0, dead: 0, abandoned: 0 })
  expect(await sql`SELECT FROM trace_index`).toHaveLength(0)
  expect(await findSettled(sql, stale.batchId)).toBe(false)
  if (taken === undefined) throw new Error('nothing was taken over')
  expect(await completeBatch(sql, taken, [entryOf(taken)])).toBe('settled')
  expect(await completeBatch(sql, taken, [entryOf(taken)])).toBe('forgotten')
  expect(await sql`SELECT FROM trace_index`).toHaveLength(2)
  expect(await findSettled(sql, taken.batchId)).toBe(true)
})

test('a lease that is renewed is not taken over; one that ran out is, with the same rows', async () => {
  const batch = await claimed(['a', 'b'], { leaseSeconds: 0 })
  expect(await renewLeases(sql, [batch], 60)).toEqual(new Set([batch.batchId]))
  expect(await takeOverBatch(sql, anyOne)).toBeUndefined()
  await renewLeases(sql, [batch], 0)
  expect(await takeOverBatch(sql, { ...anyOne, rowsMax: 1 })).toBeUndefined()
  expect(await hasDueBatch(sql)).toBe(true)
  const taken = await takeOverBatch(sql, anyOne)
  expect(names(taken)).toEqual(['a', 'b'])
})

test('a failed batch is due after its delay, keeps its rows, and counts outages apart from attempts', async () => {
  const batch = await claimed(['a', 'b'])
  const outage = { countAttempt: false, countOutage: true, delayMs: 60_000, error: 'first\0' }
  expect(await failBatch(sql, batch, outage)).toBe('settled')
  expect(await takeOverBatch(sql, anyOne)).toBeUndefined()
  await sql`UPDATE ingestion_batch SET next_attempt_at = clock_timestamp()`
  const again = await takeOverBatch(sql, anyOne)
  expect(again).toMatchObject({ batchId: batch.batchId, attempts: 0, outages: 1, takeovers: 0 })
  expect(names(again)).toEqual(['a', 'b'])
  if (again === undefined) throw new Error('nothing was taken over')
  const fault = { countAttempt: true, countOutage: false, delayMs: 0, error: 'x'.repeat(1000) }
  expect(await failBatch(sql, again, fault)).toBe('settled')
  const [found] =
    await sql`SELECT attempts, outages, first_error, length(last_error) AS length FROM ingestion_batch`
  expect(found).toEqual({ attempts: 1, outages: 1, first_error: 'first\ufffd', length: 256 })
})

test('two workers take over different batches', async () => {
  await claimed(['a'])
  await claimed(['b'])
  await expireLeases()
  const [one, two] = await Promise.all([takeOverBatch(sql, anyOne), takeOverBatch(sql, anyOne)])
  expect([...(names(one) ?? []), ...(names(two) ?? [])].sort()).toEqual(['a', 'b'])
})

test('a split batch becomes two that are due at once, and its keys are kept for the sweeper', async () => {
  const batch = await claimed(['a', 'b', 'c', 'd', 'e'])
  expect(await splitBatch(sql, batch, ['k1', 'k"2'], 'bad')).toBe('settled')
  const halves = [await takeOverBatch(sql, anyOne), await takeOverBatch(sql, anyOne)]
  expect(halves.map(names).sort()).toEqual([
    ['a', 'b', 'c'],
    ['d', 'e'],
  ])
  expect(halves.map((half) => half?.attempts)).toEqual([0, 0])
  expect(halves.map((half) => half?.bytes).sort()).toEqual([2, 3])
  expect(await findAbandoned(sql, 0, 10)).toEqual([
    { batchId: batch.batchId, secondLook: false, keys: ['k"2', 'k1'] },
  ])
})

test('a released batch is pending again', async () => {
  const batch = await claimed(['a', 'b'])
  expect(await releaseBatch(sql, batch, ['k'])).toBe('settled')
  expect(await counts()).toEqual({ queue: 2, batches: 0, objects: 0, dead: 0, abandoned: 1 })
  expect(names(await claimBatch(sql, claimOptions))).toEqual(['a', 'b'])
})

test('a buried row stands in the dead letters with everything it had', async () => {
  const batch = await claimed(['a'])
  const fault = { countAttempt: true, countOutage: false, delayMs: 0, error: 'the first' }
  await failBatch(sql, batch, fault)
  const again = await takeOverBatch(sql, anyOne)
  if (again === undefined) throw new Error('nothing was taken over')
  const burial = { reason: 'data_refused', countAttempt: true, error: 'the last' } as const
  expect(await buryBatch(sql, again, ['k'], burial)).toBe('settled')
  expect(await counts()).toEqual({ queue: 0, batches: 0, objects: 0, dead: 1, abandoned: 1 })
  const [letter] = await sql`
    SELECT id, payload, reason, attempts, first_error, last_error, request_id, tenant, signal, items, bytes,
      died_at >= received_at AS in_order FROM dead_letter`
  expect(letter).toEqual({
    id: batch.rows[0]?.id,
    payload: Buffer.from('a'),
    reason: 'data_refused',
    attempts: 2,
    first_error: 'the first',
    last_error: 'the last',
    request_id: 'request',
    tenant: 'default',
    signal: 1,
    items: 1,
    bytes: 1,
    in_order: true,
  })
})

test('a holder that lost its lease and lives takes itself off the count of those that vanished', async () => {
  const batch = await claimed(['a'])
  await expireLeases()
  await takeOverBatch(sql, anyOne)
  await absolveBatch(sql, batch.batchId)
  await expireLeases()
  expect(await takeOverBatch(sql, anyOne)).toMatchObject({ takeovers: 1 })
})

test('abandoned keys are looked at twice, and never those that the catalog names', async () => {
  const kept = await claimed(['kept'])
  await completeBatch(sql, kept, [entryOf(kept, { key: 'named' })])
  const batch = await claimed(['a'])
  await releaseBatch(sql, batch, ['named', 'unnamed'])
  const { batchId } = batch
  expect(await findAbandoned(sql, 60, 10)).toEqual([])
  expect(await findAbandoned(sql, 0, 10)).toEqual([{ batchId, secondLook: false, keys: ['unnamed'] }])
  await forgetAbandoned(sql, batchId)
  await markSwept(sql, batchId)
  expect(await findAbandoned(sql, 0, 10)).toEqual([{ batchId, secondLook: true, keys: ['unnamed'] }])
  await forgetAbandoned(sql, batchId)
  expect(await findAbandoned(sql, 0, 10)).toEqual([])
})

test('the backlog is what is pending or failed, counted up to the limit', async () => {
  const failed = await claimed(['aa', 'bb'])
  const outage = { countAttempt: false, countOutage: true, delayMs: 60_000, error: 'e' }
  await failBatch(sql, failed, outage)
  await claimed(['in work'])
  await stageAll(database, [row('ccc'), row('ddd'), row('eee')])
  const costMs = expect.any(Number)
  const whole = await countBacklog(sql, 100)
  const { firstId } = whole
  expect(whole).toEqual({ rows: 5, bytes: 13, costMs, firstId })
  expect(await countBacklog(sql, 2)).toEqual({ rows: 4, bytes: 10, costMs, firstId })
  expect(await countBacklog(sql, 100, firstId + 1n)).toEqual({
    rows: 4,
    bytes: 10,
    costMs,
    firstId: firstId + 1n,
  })
  // Where nothing is pending, whatever was staged last is behind.
  expect(await countBacklog(sql, 100, firstId + 3n)).toEqual({
    rows: 2,
    bytes: 4,
    costMs,
    firstId: firstId + 2n,
  })
  expect(await countPending(sql, 2)).toEqual({ rows: 2, oldestMs: expect.any(Number) })
  expect(
    (await summariseQueue(sql)).map(({ status, rows, items, bytes }) => ({ status, rows, items, bytes })),
  ).toEqual([
    { status: 'pending', rows: 3, items: 3, bytes: 9 },
    { status: 'processing', rows: 1, items: 1, bytes: 7 },
    { status: 'failed', rows: 2, items: 2, bytes: 4 },
    { status: 'dead', rows: 0, items: 0, bytes: 0 },
  ])
})

test('a batch whose large payload cannot be read is given back, and counts no vanished holder', async () => {
  await stageAll(database, [{ ...row('large'), payload: randomBytes(3 * 1024 ** 2) }])
  await sql`UPDATE ingestion_queue SET bytes = bytes + 1`
  const state = () => sql`SELECT status, takeovers, attempts, outages FROM ingestion_batch`
  const bounds = { ...anyOne, bytesMax: 100_000_000 }
  await expect(claimBatch(sql, bounds)).rejects.toMatchObject({ kind: 'bug' })
  expect(await state()).toEqual([{ status: 'failed', takeovers: 0, attempts: 1, outages: 0 }])
  await sql`UPDATE ingestion_batch SET next_attempt_at = statement_timestamp()`
  await expect(takeOverBatch(sql, bounds)).rejects.toMatchObject({ kind: 'bug' })
  expect(await state()).toEqual([{ status: 'failed', takeovers: 0, attempts: 2, outages: 0 }])
})
