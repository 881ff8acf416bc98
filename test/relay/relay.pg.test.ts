import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { claimBatch } from '../../src/queue/claim-batch.ts'
import { row, stageAll } from '../queue/rows.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { FaultyStore, startRelay } from './fixture.ts'

let database: TestDatabase
let sql: Sql
let store: FaultyStore

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open({ connections: 2 })
})
afterAll(async () => {
  await closePool(sql, 1000)
  await database.drop()
})
beforeEach(async () => {
  store = new FaultyStore()
  await sql`TRUNCATE ingestion_queue, ingestion_batch, dead_letter, stored_object, trace_index, abandoned_batch`
})

const stage = (names: readonly string[]) =>
  stageAll(
    database,
    names.map((name) => row(`<${name}>`)),
  )

/** Every request in an object that the catalog names, in any order. */
async function stored(): Promise<string[]> {
  const objects = await sql<{ key: string }[]>`SELECT key FROM stored_object`
  return objects
    .flatMap(({ key }) => (store.objects.get(key)?.toString() ?? '').match(/<[^>]*>/g) ?? [])
    .map((name) => name.slice(1, -1))
    .sort()
}

async function count(table: string): Promise<number> {
  const [found] = await sql.unsafe<{ rows: number }[]>(`SELECT count(*)::int AS rows FROM ${table}`)
  return found?.rows ?? -1
}

const drained = () => expect.poll(() => count('ingestion_queue'), { interval: 10, timeout: 20_000 }).toBe(0)

test('every staged request is stored in exactly one catalogued object, and nothing else is in the bucket', async () => {
  const names = Array.from({ length: 130 }, (_, i) => `${i}`)
  await stage(names)
  const { stop } = await startRelay(database, store)
  await drained()
  await stop()
  expect(await stored()).toEqual(names.sort())
  expect(store.objects.size).toBe(await count('stored_object'))
  expect(await count('ingestion_batch')).toBe(0)
})

test('a full batch is claimed at once and a partial one after the flush interval', async () => {
  await stage(Array.from({ length: 30 }, (_, i) => `${i}`))
  const { stop } = await startRelay(database, store, { flushIntervalMs: 300 })
  await drained()
  await stop()
  const sizes = await sql`SELECT requests FROM stored_object ORDER BY requests`
  expect(sizes.map(({ requests }) => requests)).toEqual([5, 25])
})

test('an outage of the store blames nobody and loses nothing, and the batch keeps its key', async () => {
  let outages = 0
  const keys = new Set<string>()
  store.beforePut = (key) => {
    keys.add(key)
    if (outages++ < 4) throw new Failure('outage', 'the store is away', { code: 'SlowDown' })
  }
  await stage(['a', 'b', 'c'])
  const { stop, events } = await startRelay(database, store)
  await drained()
  await stop()
  expect(await stored()).toEqual(['a', 'b', 'c'])
  expect(keys.size).toBe(1)
  expect(await count('dead_letter')).toBe(0)
  const failures = events.filter(({ event }) => event === 'batch_persist_failed')
  expect(failures[0]).toMatchObject({ level: 'error', reason: 'outage', verdict: 'retry', attempts: 0 })
})

test('a poisoned row is found by splitting and buried after MAX_ATTEMPTS, and its neighbours are stored', async () => {
  store.beforePut = (_key, body) => {
    if (body.includes('<poison>')) throw new Failure('data', 'never', { code: 'EntityTooLarge' })
  }
  const names = Array.from({ length: 24 }, (_, i) => `${i}`)
  await stage([...names.slice(0, 11), 'poison', ...names.slice(11)])
  const { stop } = await startRelay(database, store)
  await drained()
  await stop()
  expect(await stored()).toEqual(names.sort())
  const letters = await sql`SELECT payload, attempts, reason, last_error FROM dead_letter`
  expect([...letters]).toEqual([
    {
      payload: Buffer.from('<poison>'),
      attempts: 3,
      reason: 'data_refused',
      last_error: 'EntityTooLarge: never',
    },
  ])
  // Halving 25 rows takes at most five splits; then the last one counts its three attempts.
  expect(await count('abandoned_batch')).toBeLessThanOrEqual(6)
})

test('H8: wrong credentials, a clock that is off and a full store blame nobody, however often they come', async () => {
  const refusals = [
    new Failure('configuration', 'no', { code: 'AccessDenied' }),
    new Failure('configuration', 'no', { code: 'SignatureDoesNotMatch' }),
    new Failure('outage', 'no', { code: 'RequestTimeTooSkewed' }),
    new Failure('outage', 'no', { code: 'NoSuchBucket' }),
    new Failure('outage', 'no', { code: 'XMinioStorageFull' }),
  ]
  store.beforePut = () => {
    const refusal = refusals.shift()
    if (refusal !== undefined) throw refusal
  }
  await stage(['a'])
  // One attempt would be enough to bury a row that is to blame.
  const { stop, events } = await startRelay(database, store, { attemptsMax: 1 })
  await drained()
  await stop()
  expect(refusals).toEqual([])
  expect(await stored()).toEqual(['a'])
  expect(await count('dead_letter')).toBe(0)
  const failed = events.filter(({ event }) => event === 'batch_persist_failed')
  expect(new Set(failed.map(({ attempts }) => attempts))).toEqual(new Set([0]))
})

test('G1: a row whose id was taken long before it was committed is stored, after 1,000 later ones and by another relay, too', async () => {
  const first = await startRelay(database, store)
  await stage(['before'])
  const open = database.open({ connections: 1 })
  const committing = Promise.withResolvers<void>()
  const inserted = Promise.withResolvers<void>()
  const late = open.begin(async (transaction) => {
    const { tenant, summary, payload, requestId } = row('<late>')
    for (const name of ['late', 'later']) {
      await transaction`
        INSERT INTO ingestion_queue
          (signal, tenant, encoding, items, bytes, unpacked_bytes, request_id, summary, payload)
        VALUES (1, ${tenant}, 0, 1, ${payload.length}, 1, ${requestId}, ${summary}, ${Buffer.from(`<${name}>`)})`
    }
    inserted.resolve()
    await committing.promise
  })
  await inserted.promise
  const names = Array.from({ length: 1_000 }, (_, i) => `${i}`)
  await stage(names)
  await drained()
  await first.stop()
  const second = await startRelay(database, store)
  await stage(['after'])
  await drained()
  committing.resolve()
  await late
  await closePool(open, 1000)
  await drained()
  await second.stop()
  expect(await stored()).toEqual([...names, 'before', 'late', 'later', 'after'].sort())
})

test('G8: a batch across a change in the length of ids is put twice with the same bytes, in the order of numbers', async () => {
  await sql`ALTER SEQUENCE ingestion_queue_id_seq RESTART WITH 99999998`
  const puts: { key: string; body: string }[] = []
  store.beforePut = (key, body) => {
    puts.push({ key, body: body.toString() })
    if (puts.length === 1) throw new Failure('outage', 'once')
  }
  await stage(['a', 'bb', 'ccc', 'dddd'])
  const { stop } = await startRelay(database, store)
  await drained()
  await stop()
  expect(puts.map(({ body }) => body)).toEqual(['<a><bb><ccc><dddd>', '<a><bb><ccc><dddd>'])
  expect(puts[0]?.key).toBe(puts[1]?.key)
  const [object] = await sql`SELECT queue_ids::text, offsets::text FROM stored_object`
  expect(object).toEqual({ queue_ids: '{99999998,99999999,100000000,100000001}', offsets: '{0,3,7,12}' })
})

test('a put whose answer is lost is not put twice under another name', async () => {
  let lost = false
  store.afterPut = () => {
    if (lost) return
    lost = true
    throw new Failure('outage', 'the answer is lost')
  }
  await stage(['a', 'b'])
  const { stop } = await startRelay(database, store)
  await drained()
  await stop()
  expect(await stored()).toEqual(['a', 'b'])
  expect(store.objects.size).toBe(1)
})

test('a batch whose holder vanished is taken over whole by another', async () => {
  await stage(['a', 'b', 'c'])
  const claims = database.open({ connections: 1 })
  const batch = await claimBatch(claims, {
    owner: 'vanished',
    leaseSeconds: 1,
    rowsMax: 25,
    bytesMax: 1_000_000,
    firstAnySize: true,
  })
  await closePool(claims, 1000)
  expect(batch?.rows.length).toBe(3)
  const { stop, events } = await startRelay(database, store)
  await drained()
  await stop()
  expect(await stored()).toEqual(['a', 'b', 'c'])
  expect(events.find(({ event }) => event === 'batch_taken_over')).toMatchObject({ takeovers: 1, rows: 3 })
})

test('a worker that is given up gives its batch back, so that restarts in an outage never bury it', async () => {
  store.beforePut = (_key, _body, signal) =>
    new Promise((_, reject) => {
      signal?.addEventListener('abort', () => reject(new Failure('outage', 'given up')))
    })
  await stage(['a'])
  for (let restart = 1; restart <= 5; restart++) {
    const { stop, relay } = await startRelay(database, store)
    await expect.poll(() => store.puts, { interval: 10 }).toBe(restart)
    await stop(AbortSignal.abort())
    expect(relay.batchesInHand).toBe(0)
  }
  const [batch] = await sql`SELECT status, attempts, outages, takeovers FROM ingestion_batch`
  expect(batch).toEqual({ status: 'failed', attempts: 0, outages: 0, takeovers: 0 })
  store.beforePut = () => undefined
  const last = await startRelay(database, store)
  await drained()
  await last.stop()
  expect(await stored()).toEqual(['a'])
  expect(await count('dead_letter')).toBe(0)
})

test('a row whose summary cannot be read is buried, and its neighbours are stored', async () => {
  const names = Array.from({ length: 9 }, (_, i) => `${i}`)
  await stage(names.slice(0, 4))
  await stageAll(database, [row('<unreadable>', { summary: Buffer.from([2]) })])
  await stage(names.slice(4))
  const { stop } = await startRelay(database, store)
  await drained()
  await stop()
  expect(await stored()).toEqual(names)
  const letters = await sql`SELECT payload, reason FROM dead_letter`
  expect([...letters]).toEqual([{ payload: Buffer.from('<unreadable>'), reason: 'data_refused' }])
})

test('a failed batch that is larger than what is free is not kept waiting by what came later', async () => {
  const large = 'x'.repeat(900_000)
  let outage = true
  store.beforePut = (_key, body) => {
    if (outage && body.includes('<large')) {
      outage = false
      throw new Failure('outage', 'once')
    }
  }
  await stage([`large${large}`])
  const { stop } = await startRelay(database, store, {
    bufferBytesMax: 1_000_000,
    batchRowsMax: 1,
    bufferRowsMax: 4,
  })
  await expect.poll(() => outage, { interval: 5 }).toBe(false)
  await stage(Array.from({ length: 40 }, (_, i) => `${i}`))
  await drained()
  await stop()
  expect((await stored()).length).toBe(41)
})

test('a stop finishes what is being written and gives back what is not begun', async () => {
  let release: () => void = () => undefined
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  store.beforePut = () => released
  await stage(Array.from({ length: 100 }, (_, i) => `${i}`))
  const { stop } = await startRelay(database, store, { workers: 1 })
  await expect.poll(() => count('ingestion_batch'), { interval: 10 }).toBe(4)
  const stopping = stop()
  await expect.poll(() => count('ingestion_batch'), { interval: 10 }).toBe(1)
  release()
  await stopping
  expect((await stored()).length).toBe(25)
  expect(await count('ingestion_batch')).toBe(0)
  const [pending] = await sql`SELECT count(*)::int AS rows FROM ingestion_queue WHERE batch_id IS NULL`
  expect(pending).toEqual({ rows: 75 })
})

test('polling pauses while the buffer is full and goes on when there is room', async () => {
  let release: () => void = () => undefined
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  store.beforePut = () => released
  await stage(Array.from({ length: 60 }, (_, i) => `${i}`))
  const { stop, relay, events } = await startRelay(database, store, { bufferRowsMax: 50 })
  await expect
    .poll(() => events.some(({ event }) => event === 'processing_paused'), { interval: 10 })
    .toBe(true)
  expect(events.find(({ event }) => event === 'processing_paused')).toMatchObject({
    level: 'warn',
    reason: 'buffer_full',
    rows: 50,
  })
  expect(relay.batchesInHand).toBe(2)
  release()
  await drained()
  await stop()
  expect((await stored()).length).toBe(60)
})

test('a batch whose holder froze past its lease is stored once, and the late holder touches nothing', async () => {
  let wake: () => void = () => undefined
  const frozen = new Promise<void>((resolve) => {
    wake = resolve
  })
  store.beforePut = () => frozen
  await stage(['a', 'b'])
  const sleeper = await startRelay(database, store)
  await expect.poll(() => store.puts, { interval: 10 }).toBe(1)
  await sql`UPDATE ingestion_batch SET lease_until = clock_timestamp() - interval '1 second'`
  store.beforePut = () => undefined
  const other = await startRelay(database, store)
  await drained()
  wake()
  await sleeper.stop()
  await other.stop()
  expect(await stored()).toEqual(['a', 'b'])
  expect(store.objects.size).toBe(1)
  expect(await count('stored_object')).toBe(1)
  expect(sleeper.events.map(({ event }) => event)).toContain('batch_settled_before')
})

test('a missing partition of the trace index is made and harms nobody', async () => {
  await sql`SELECT ensure_trace_index_partition(current_date)`
  const partitions = await sql<{ name: string }[]>`
    SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'trace_index'::regclass`
  for (const { name } of partitions) await sql.unsafe(`DROP TABLE ${name}`)
  await sql`TRUNCATE ingestion_queue`
  const { encodeSummary } = await import('../../src/otlp/summary.ts')
  const summary = encodeSummary({
    minTimeUnixNano: 1n,
    maxTimeUnixNano: 2n,
    services: ['s'],
    traceHashes: BigInt64Array.of(5n),
    cut: false,
  })
  await stageAll(database, [row('<a>', { summary })])
  const { stop, events } = await startRelay(database, store)
  await drained()
  await stop()
  expect(await stored()).toEqual(['a'])
  expect(await count('trace_index')).toBe(1)
  expect(events.filter(({ event }) => event === 'batch_persist_failed')).toEqual([])
})

test('while the circuit is open nothing is claimed and nothing churns, and everything is stored after it', async () => {
  let isAway = true
  store.beforePut = () => {
    if (isAway) throw new Failure('outage', 'the store is away')
  }
  await stage(Array.from({ length: 300 }, (_, i) => `${i}`))
  const { stop, events, relay } = await startRelay(database, store, {
    batchRowsMax: 5,
    bufferRowsMax: 10,
    circuitResetSeconds: 3,
  })
  const said = (event: string) => events.some((line) => line.event === event)
  await expect.poll(() => said('circuit_open'), { interval: 5, timeout: 20_000 }).toBe(true)
  // A claim may be under way when it opens.
  await new Promise((resolve) => setTimeout(resolve, 500))
  await expect.poll(() => relay.batchesInHand, { interval: 5, timeout: 20_000 }).toBe(0)
  const queue = () =>
    sql`SELECT (SELECT count(*) FROM ingestion_queue WHERE batch_id IS NULL) AS pending,
      (SELECT sum(outages) FROM ingestion_batch) AS outages, (SELECT count(*) FROM ingestion_batch) AS batches`
  const before = await queue()
  await new Promise((resolve) => setTimeout(resolve, 1_000))
  expect(await queue()).toEqual(before)
  expect(relay.complaints.store).toContain('the circuit is open')
  isAway = false
  await drained()
  expect([said('circuit_half_open'), said('circuit_closed'), relay.complaints.store]).toEqual([
    true,
    true,
    undefined,
  ])
  await stop()
  expect((await stored()).length).toBe(300)
})
