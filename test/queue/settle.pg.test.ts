import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { systemClock } from '../../src/foundation/clock.ts'
import { decodeSummary, encodeSummary } from '../../src/otlp/summary.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import type { Batch } from '../../src/queue/batch.ts'
import { claimBatch } from '../../src/queue/claim-batch.ts'
import { countPending } from '../../src/queue/count-pending.ts'
import { relayQueue } from '../../src/queue/relay-queue.ts'
import { completeBatch, releaseBatch } from '../../src/queue/settle.ts'
import { objectsOfBatch } from '../../src/sink/object.ts'
import { manualClock } from '../support/clock.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { row, stageAll } from './rows.ts'

const traces = 5_000
const claimOptions = { owner: 'test', leaseSeconds: 60, rowsMax: 2, bytesMax: 1_000_000, firstAnySize: true }
let database: TestDatabase
let sql: Sql
/** Looks on from beside. */
let other: Sql

beforeAll(async () => {
  database = await cloneDatabase()
  other = database.open({ connections: 2 })
})
afterAll(async () => {
  await closePool(other, 1000)
  await database.drop()
})
beforeEach(async () => {
  await other`TRUNCATE ingestion_queue, ingestion_batch, stored_object, trace_index`
  sql = database.open({ connections: 1 })
})
afterEach(() => closePool(sql, 1000))

async function claimed(): Promise<Batch> {
  const batch = await claimBatch(other, claimOptions)
  if (batch === undefined) throw new Error('nothing was claimed')
  return batch
}

/** Two requests a batch, each of many traces. */
async function stageBatches(batches: number): Promise<void> {
  const traceHashes = BigInt64Array.from({ length: traces }, (_, hash) => BigInt(hash))
  const summary = encodeSummary({
    minTimeUnixNano: 1n,
    maxTimeUnixNano: 2n,
    services: [],
    traceHashes,
    cut: false,
  })
  const rows = Array.from({ length: 2 * batches }, (_, place) => ({ ...row(`row ${place}`), summary }))
  await stageAll(database, rows)
}

function entriesOf(batch: Batch) {
  const rows = batch.rows.map((one) => ({ ...one, summary: decodeSummary(one.summary) }))
  return objectsOfBatch(batch.batchId, rows).map((object) => ({ ...object, bucket: 'test' }))
}

const complete = (batch: Batch) => completeBatch(sql, batch, entriesOf(batch))

async function counts() {
  const [found] = await other`
    SELECT (SELECT count(*)::int FROM ingestion_queue) AS queue, (SELECT count(*)::int FROM ingestion_batch) AS batches,
      (SELECT count(*)::int FROM stored_object) AS objects, (SELECT count(*)::int FROM trace_index) AS traces`
  return found
}

test('settles have their connection to themselves, whatever else is said to the same pool meanwhile', async () => {
  await stageBatches(10)
  const batches: Batch[] = []
  while (batches.length < 10) batches.push(await claimed())
  await countPending(sql, 1)
  const outcomes = await Promise.all(
    batches.flatMap((batch) => [complete(batch), countPending(sql, 1), countPending(sql, 1)]),
  )
  expect(outcomes.filter((one) => one === 'settled')).toHaveLength(10)
  expect(await counts()).toEqual({ queue: 0, batches: 0, objects: 10, traces: 20 * traces })
})

test('a settle whose session ends between its traces and its fence leaves nothing, and stores once when said again', async () => {
  await stageBatches(1)
  const batch = await claimed()
  const [session] = await sql<{ pid: number }[]>`SELECT pg_backend_pid() AS pid`
  const held = Promise.withResolvers<void>()
  const locked = Promise.withResolvers<void>()
  const lock = other.begin(async (tx) => {
    await tx`SELECT FROM ingestion_batch FOR UPDATE`
    locked.resolve()
    await held.promise
  })
  await locked.promise
  const ended = expect(complete(batch)).rejects.toMatchObject({ kind: 'outage' })
  const waits = async () => {
    const [found] = await other<{ waits: boolean }[]>`
      SELECT wait_event_type = 'Lock' AS waits FROM pg_stat_activity WHERE pid = ${session?.pid ?? 0}`
    return found?.waits === true
  }
  while (!(await waits())) await systemClock.sleep(5)
  await other`SELECT pg_terminate_backend(${session?.pid ?? 0})`
  await ended
  held.resolve()
  await lock
  expect(await counts()).toEqual({ queue: 2, batches: 1, objects: 0, traces: 0 })
  expect(await complete(batch)).toBe('settled')
  expect(await complete(batch)).toBe('forgotten')
  expect(await counts()).toEqual({ queue: 0, batches: 0, objects: 1, traces: 2 * traces })
})

test('what was given back, and what was numbered early and committed late, is found below the mark', async () => {
  const clock = manualClock()
  const queue = relayQueue({ claims: other, settles: other, owner: 'test', leaseSeconds: 60, clock })
  const bounds = { rowsMax: 2, bytesMax: 1_000_000, firstAnySize: true }
  const claimNext = async () => {
    await queue.countPending(2)
    return await queue.claimBatch(bounds)
  }
  await stageBatches(6)
  const first = await claimNext()
  for (let claims = 0; claims < 4; claims++) {
    await clock.advance(600)
    expect((await claimNext())?.rows).toHaveLength(2)
  }
  if (first === undefined) throw new Error('nothing was claimed')
  await releaseBatch(other, first, [])
  expect((await claimNext())?.rows[0]?.id).toBeGreaterThan(first.rows[1]?.id ?? 0n)
  expect(await claimNext()).toBeUndefined()
  await clock.advance(1_000)
  expect((await claimNext())?.rows.map(({ id }) => id)).toEqual(first.rows.map(({ id }) => id))
})
