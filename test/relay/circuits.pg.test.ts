import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { row, stageAll } from '../queue/rows.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { FaultyStore, type RelayFixture, startRelay } from './fixture.ts'

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

const names = (count: number) => Array.from({ length: count }, (_, i) => `${i}`)
const stage = (some: readonly string[]) =>
  stageAll(
    database,
    some.map((name) => row(`<${name}>`)),
  )
const waiting = async () => (await sql`SELECT count(*)::int AS rows FROM ingestion_queue`)[0]?.rows
const drained = () => expect.poll(waiting, { interval: 10, timeout: 20_000 }).toBe(0)
const eventsOf = ({ events }: RelayFixture, event: string) => events.filter((one) => one.event === event)
const opened = (relay: RelayFixture) =>
  expect.poll(() => eventsOf(relay, 'circuit_open').length, { interval: 5, timeout: 20_000 })

/** What no worker may touch while a circuit is open. */
async function state(): Promise<unknown> {
  const batches = await sql`
    SELECT batch_id, status, attempts, outages, takeovers, lease_token FROM ingestion_batch ORDER BY batch_id`
  const [rows] = await sql`SELECT count(*)::int AS rows, count(batch_id)::int AS claimed FROM ingestion_queue`
  return { batches: [...batches], rows }
}

const away = () => {
  throw new Failure('outage', 'the store is away', { code: 'SlowDown' })
}
const slowToReset = { circuitFailureThreshold: 3, circuitResetSeconds: 600 }

test('while the circuit is open nothing is claimed, put, counted or changed, and what was in hand is given back', async () => {
  store.beforePut = away
  await stage(names(200))
  const fixture = await startRelay(database, store, { ...slowToReset, batchRowsMax: 10 })
  await opened(fixture).toBe(1)
  await expect.poll(() => fixture.relay.batchesInHand, { interval: 5 }).toBe(0)
  const before = await state()
  const puts = store.puts
  expect(puts).toBeLessThanOrEqual(2 * slowToReset.circuitFailureThreshold)
  const [processing] =
    await sql`SELECT count(*)::int AS rows FROM ingestion_batch WHERE status = 'processing'`
  expect(processing).toEqual({ rows: 0 })
  // Ten times the longest wait between two tries of a batch.
  await sql`SELECT pg_sleep(1)`
  expect(await state()).toEqual(before)
  expect(store.puts).toBe(puts)
  await fixture.stop()
  expect(await sql`SELECT 1 FROM ingestion_batch WHERE attempts > 0`).toHaveLength(0)
  expect(eventsOf(fixture, 'circuit_open')[0]).toMatchObject({ sink: 'store', failures: 3 })
})

test('an outage shorter than the threshold opens nothing', async () => {
  let outages = 0
  store.beforePut = () => {
    if (outages++ < 2) away()
  }
  await stage(names(10))
  const fixture = await startRelay(database, store, slowToReset)
  await drained()
  await fixture.stop()
  expect(fixture.events.filter(({ event }) => event.startsWith('circuit'))).toEqual([])
})

test('half open, one batch at a time goes first; the first that is stored lets all others follow', async () => {
  let underWay = 0
  let mostUnderWay = 0
  let isAway = true
  store.beforePut = async () => {
    underWay++
    mostUnderWay = Math.max(mostUnderWay, underWay)
    await new Promise((resolve) => setTimeout(resolve, 20))
    underWay--
    if (isAway) away()
  }
  await stage(names(300))
  const circuit = { circuitFailureThreshold: 3, circuitResetSeconds: 0.1 }
  const fixture = await startRelay(database, store, { ...circuit, batchRowsMax: 10, workers: 4 })
  await opened(fixture).toBe(1)
  mostUnderWay = 0
  await opened(fixture).toBe(5)
  expect(mostUnderWay).toBe(1)
  isAway = false
  await drained()
  await fixture.stop()
  // After one success the batches are put side by side again.
  expect(mostUnderWay).toBeGreaterThan(1)
  expect(eventsOf(fixture, 'circuit_closed')).toHaveLength(1)
  expect(await sql`SELECT 1 FROM stored_object`).not.toHaveLength(0)
  expect(await sql`SELECT 1 FROM dead_letter`).toHaveLength(0)
  expect(fixture.relay.complaints).toEqual({ store: undefined, catalog: undefined })
})

test('a batch that alone fails for ever does not keep the circuit open for the others', async () => {
  store.beforePut = (_key, body) => {
    if (body.includes('<bad>')) throw new Failure('outage', 'too slow for its size')
  }
  await stage(['bad'])
  const circuit = { circuitFailureThreshold: 2, circuitResetSeconds: 0.2 }
  // It is due again before each probe.
  const backoff = { baseMs: 1, maxMs: 1, random: () => 0.5 }
  const fixture = await startRelay(database, store, {
    ...circuit,
    backoff,
    batchRowsMax: 1,
    bufferRowsMax: 4,
  })
  await opened(fixture).toBe(1)
  await stage(names(30))
  await expect.poll(waiting, { interval: 10, timeout: 20_000 }).toBe(1)
  await fixture.stop()
  expect(await sql`SELECT 1 FROM stored_object`).toHaveLength(30)
})

test('a catalog that refuses what was put stops the claims, says what to fix, and goes on when it is mended', async () => {
  await stage(names(100))
  const circuit = { circuitFailureThreshold: 2, circuitResetSeconds: 0.1 }
  await sql`ALTER TABLE stored_object RENAME TO stored_object_away`
  let fixture: RelayFixture
  try {
    fixture = await startRelay(database, store, { ...circuit, batchRowsMax: 10 })
    await opened(fixture).toBeGreaterThan(2)
  } finally {
    await sql`ALTER TABLE stored_object_away RENAME TO stored_object`
  }
  await drained()
  await fixture.stop()
  const [first] = eventsOf(fixture, 'circuit_open')
  expect(first).toMatchObject({ sink: 'catalog', reason: 'configuration' })
  expect(eventsOf(fixture, 'circuit_closed')).toHaveLength(1)
  expect(await sql`SELECT 1 FROM dead_letter`).toHaveLength(0)
  expect((await sql`SELECT sum(requests)::int AS requests FROM stored_object`)[0]).toEqual({ requests: 100 })
})

test('a batch of 64 that fails for one row is halved six times, and no more than twelve puts find the row', async () => {
  let failed = 0
  let well = 0
  store.beforePut = (_key, body) => {
    if (body.includes('<poison>')) {
      failed++
      throw new Failure('data', 'never', { code: 'EntityTooLarge' })
    }
    well++
  }
  const attemptsMax = 3
  for (const place of [0, 31, 63]) {
    failed = 0
    well = 0
    await stage(names(64).map((name) => (name === `${place}` ? 'poison' : name)))
    const fixture = await startRelay(database, store, { batchRowsMax: 64, attemptsMax })
    await drained()
    await fixture.stop()
    // log2(64) halvings, then the row alone; each halving leaves one half that is stored.
    expect(failed - attemptsMax).toBe(6)
    expect(well).toBe(6)
  }
  expect(await sql`SELECT 1 FROM dead_letter`).toHaveLength(3)
})
