import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import type { Batch } from '../../src/queue/batch.ts'
import { claimBatch } from '../../src/queue/claim-batch.ts'
import type { StagedRow } from '../../src/queue/copy-format.ts'
import {
  countDeadLetters,
  type DeadLetterFilter,
  discardDeadLetters,
  listDeadLetters,
  readDeadLetters,
  replayDeadLetters,
} from '../../src/queue/dead-letters.ts'
import {
  absolveBatch,
  buryBatch,
  completeBatch,
  failBatch,
  findSettled,
  releaseBatch,
  splitBatch,
} from '../../src/queue/settle.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { row, stageAll } from './rows.ts'

let database: TestDatabase
let sql: Sql
const claimOptions = { owner: 'test', leaseSeconds: 60, rowsMax: 25, bytesMax: 1_000_000, firstAnySize: true }
const burial = { reason: 'data_refused', countAttempt: true, error: 'the store refuses it' } as const
const LAST = 9_223_372_036_854_775_807n
const everything = { after: 0n, last: LAST, rowsMax: 1_000_000, bytesMax: 1_000_000_000 }

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open({ connections: 4, planCacheMode: 'force_generic_plan' })
})
afterAll(async () => {
  await closePool(sql, 1000)
  await database.drop()
})
beforeEach(async () => {
  await sql`TRUNCATE ingestion_queue, ingestion_batch, dead_letter, stored_object, trace_index, abandoned_batch`
})

async function claimOne(): Promise<Batch> {
  const batch = await claimBatch(sql, { ...claimOptions, rowsMax: 1 })
  if (batch === undefined) throw new Error('nothing was claimed')
  return batch
}

/** Stages the rows and buries each in a batch of its own, as the relay does; the ids in their order. */
async function buried(rows: readonly StagedRow[]): Promise<bigint[]> {
  await stageAll(database, rows)
  const ids: bigint[] = []
  for (const _ of rows) {
    const batch = await claimOne()
    await buryBatch(sql, batch, ['key'], burial)
    ids.push(...batch.rows.map(({ id }) => id))
  }
  return ids
}

/** `count` dead letters of four bytes each, written past the queue. */
async function manyDead(count: number): Promise<void> {
  await sql.unsafe(`
    INSERT INTO dead_letter (id, received_at, batch_id, items, bytes, unpacked_bytes, attempts, signal, encoding, tenant,
      request_id, reason, summary, payload)
    SELECT n, now(), gen_random_uuid(), 1, 4, 4, 1, 1, 0, 'default', 'r' || n, 'data_refused', '', int4send(n::int)
    FROM generate_series(1, ${count}) AS n`)
}

const staged = () => sql`
  SELECT id, received_at::text, batch_id, items, bytes, unpacked_bytes, signal, encoding, tenant, request_id, summary,
    payload
  FROM ingestion_queue ORDER BY id`

async function idsIn(table: string): Promise<bigint[]> {
  const found = await sql.unsafe<{ id: bigint }[]>(`SELECT id FROM ${table} ORDER BY id`)
  return found.map(({ id }) => id)
}

test('a replayed letter is in the queue as it was before: bytes, id, times and all that was known of it', async () => {
  await stageAll(database, [
    row('plain'),
    row(Buffer.from([0, 255, 1]), {
      signal: 'logs',
      tenant: 'acme',
      encoding: 'gzip',
      items: 7,
      unpackedBytes: 99,
      requestId: 'theirs',
      summary: Buffer.from('summary'),
    }),
  ])
  const before = await staged()
  for (let left = before.length; left > 0; left--) await buryBatch(sql, await claimOne(), ['key'], burial)
  expect(await idsIn('ingestion_queue')).toEqual([])
  expect(await replayDeadLetters(sql, {}, everything)).toEqual({
    rows: 2,
    bytes: 8,
    lastId: before.at(-1)?.id,
  })
  expect(await staged()).toEqual(before)
  expect(await idsIn('dead_letter')).toEqual([])
  expect(await replayDeadLetters(sql, {}, everything)).toEqual({ rows: 0, bytes: 0, lastId: null })
})

test('a replayed letter may die again, and be replayed again', async () => {
  const ids = await buried([row('a')])
  for (let round = 0; round < 3; round++) {
    expect(await replayDeadLetters(sql, {}, everything)).toMatchObject({ rows: 1 })
    const batch = await claimOne()
    expect(batch.rows.map(({ id, payload }) => [id, payload.toString()])).toEqual([[ids[0], 'a']])
    await buryBatch(sql, batch, ['key'], burial)
  }
  expect(await idsIn('dead_letter')).toEqual(ids)
})

test('pieces end at their bounds on rows and bytes, save for a first letter of any size, and meet each letter once', async () => {
  const ids = await buried([row('x'.repeat(100)), row('b'), row('c'), row('d')])
  const bounds = { last: LAST, rowsMax: 2, bytesMax: 50 }
  const first = await replayDeadLetters(sql, {}, { ...bounds, after: 0n })
  expect(first).toEqual({ rows: 1, bytes: 100, lastId: ids[0] })
  // It dies again while the replay goes on: that is for the next one.
  await buryBatch(sql, await claimOne(), ['key'], burial)
  const second = await replayDeadLetters(sql, {}, { ...bounds, after: ids[0] ?? 0n })
  expect(second).toEqual({ rows: 2, bytes: 2, lastId: ids[2] })
  const third = await replayDeadLetters(sql, {}, { ...bounds, after: ids[2] ?? 0n, last: ids[2] ?? 0n })
  expect(third).toEqual({ rows: 0, bytes: 0, lastId: null })
  expect(await idsIn('dead_letter')).toEqual([ids[0], ids[3]])
})

test('replays and discards at the same time move or delete each letter once', async () => {
  await manyDead(3000)
  const totals = { replayed: 0, discarded: 0 }
  const replay = async () => {
    for (let after: bigint | null = 0n; after !== null; ) {
      const moved = await replayDeadLetters(sql, {}, { ...everything, after, rowsMax: 70 })
      totals.replayed += moved.rows
      after = moved.lastId
    }
  }
  const discard = async () => {
    for (let after: bigint | null = 1000n; after !== null; ) {
      const moved = await discardDeadLetters(sql, {}, { after, last: 2000n, rowsMax: 90 })
      totals.discarded += moved.rows
      after = moved.lastId
    }
  }
  await Promise.all([replay(), replay(), discard(), replay()])
  expect(totals.replayed + totals.discarded).toBe(3000)
  expect((await idsIn('ingestion_queue')).length).toBe(totals.replayed)
  expect(await idsIn('dead_letter')).toEqual([])
  expect(totals.discarded).toBeGreaterThan(0)
})

/** Ends the sessions of that name, and waits until they are gone and whatever they did is done or undone. */
async function endSessions(name: string): Promise<void> {
  for (let left = -1; left !== 0; ) {
    await sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE application_name = ${name} AND datname = current_database()`
    const [found] = await sql<{ sessions: number }[]>`
      SELECT count(*)::int AS sessions FROM pg_stat_activity WHERE application_name = ${name}`
    left = found?.sessions ?? 0
  }
}

/** Waits until a session waits for that. */
async function waitsFor(name: string, event: string): Promise<void> {
  const waits = async () => {
    const [found] = await sql<{ waits: boolean }[]>`
      SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = ${name} AND wait_event = ${event}) AS waits`
    return found?.waits
  }
  await expect.poll(waits, { interval: 5, timeout: 10_000 }).toBe(true)
}

test('a replay that is cut off in the middle of a piece has moved nothing of it', async () => {
  await manyDead(100)
  const victim = database.open({ name: 'victim', connections: 1 })
  const blocker = database.open({ name: 'blocker', connections: 1 })
  // The id of the last letter is about to be taken, so that the replay waits with the others moved.
  const blocking = blocker.unsafe(`
    BEGIN;
    INSERT INTO ingestion_queue (id, items, bytes, unpacked_bytes, signal, encoding, tenant, request_id, summary, payload)
    OVERRIDING SYSTEM VALUE VALUES (100, 1, 1, 1, 1, 0, 'default', 'r', '', '');
    SELECT pg_sleep(60)`)
  const outcome = (work: PromiseLike<unknown>) =>
    Promise.resolve(work).then(
      () => 'answered',
      () => 'cut off',
    )
  const blocked = outcome(blocking)
  await waitsFor('blocker', 'PgSleep')
  const replayed = outcome(replayDeadLetters(victim, {}, everything))
  await waitsFor('victim', 'transactionid')
  await endSessions('victim')
  await endSessions('blocker')
  expect(await Promise.all([blocked, replayed])).toEqual(['cut off', 'cut off'])
  await closePool(victim, 50)
  await closePool(blocker, 50)
  expect((await idsIn('dead_letter')).length).toBe(100)
  expect(await idsIn('ingestion_queue')).toEqual([])
  expect(await replayDeadLetters(sql, {}, everything)).toMatchObject({ rows: 100, lastId: 100n })
})

test('a replay that is cut off at any moment has moved a whole piece or nothing of it', async () => {
  await manyDead(1000)
  for (let round = 0; round < 10; round++) {
    const name = `victim ${round}`
    const victim = database.open({ name, connections: 1 })
    await victim`SELECT 1`
    const before = await idsIn('ingestion_queue')
    const replaying = replayDeadLetters(victim, {}, { ...everything, rowsMax: 100 }).catch(() => undefined)
    // Each time a little later in the statement.
    await new Promise((resolve) => setTimeout(resolve, round / 2))
    await endSessions(name)
    const answer = await replaying
    await closePool(victim, 50)
    const queued = await idsIn('ingestion_queue')
    const dead = await idsIn('dead_letter')
    expect(answer === undefined ? [0, 100] : [100]).toContain(queued.length - before.length)
    expect(queued.length + dead.length).toBe(1000)
    expect(new Set([...queued, ...dead]).size).toBe(1000)
  }
})

test('a letter whose id is in the queue already stays where it is', async () => {
  const [id] = await buried([row('a')])
  await sql`
    INSERT INTO ingestion_queue (id, items, bytes, unpacked_bytes, signal, encoding, tenant, request_id, summary, payload)
    OVERRIDING SYSTEM VALUE SELECT id, items, bytes, unpacked_bytes, signal, encoding, tenant, request_id, summary, payload
    FROM dead_letter`
  await expect(replayDeadLetters(sql, {}, everything)).rejects.toMatchObject({ kind: 'data', code: '23505' })
  expect(await idsIn('dead_letter')).toEqual([id])
  expect(await idsIn('ingestion_queue')).toEqual([id])
})

test('each filter means what it says, for counting, listing, reading, discarding and replaying', async () => {
  await stageAll(database, [
    row('a'),
    row('b', { signal: 'logs' }),
    row('c', { tenant: 'acme' }),
    row('d', { signal: 'metrics' }),
  ])
  const ids: bigint[] = []
  for (const reason of ['data_refused', 'data_refused', 'data_refused', 'worker_lost'] as const) {
    const batch = await claimOne()
    await buryBatch(sql, batch, [], { ...burial, reason })
    ids.push(batch.rows[0]?.id ?? 0n)
  }
  const [a = 0n, b = 0n, c = 0n, d = 0n] = ids
  await sql`UPDATE dead_letter SET died_at = '2026-01-01T00:00:00Z' WHERE id = ${a}`
  await sql`UPDATE dead_letter SET died_at = '2026-01-02T00:00:00Z' WHERE id = ${b}`
  const cases: [DeadLetterFilter, bigint[]][] = [
    [{}, ids],
    [{ ids: [a, d, 99_999n] }, [a, d]],
    [{ ids: [] }, []],
    [{ reason: 'worker_lost' }, [d]],
    [{ tenant: 'acme' }, [c]],
    [{ signal: 'logs' }, [b]],
    [{ since: new Date('2026-01-02T00:00:00Z'), until: new Date('2026-01-03T00:00:00Z') }, [b]],
    [{ until: new Date('2026-01-02T00:00:00Z') }, [a]],
    [{ tenant: 'default', signal: 'traces', reason: 'data_refused' }, [a]],
  ]
  for (const [filter, wanted] of cases) {
    const label = JSON.stringify(filter, (_, value) => (typeof value === 'bigint' ? String(value) : value))
    expect(await countDeadLetters(sql, filter), label).toEqual({
      rows: wanted.length,
      items: wanted.length,
      bytes: wanted.length,
      lastId: wanted.at(-1) ?? 0n,
    })
    const listed = await listDeadLetters(sql, filter, { before: LAST, limit: 10 })
    expect(
      listed.map(({ id }) => id),
      label,
    ).toEqual(wanted.toReversed())
    const letters = await readDeadLetters(sql, filter, everything)
    expect(
      letters.map(({ id }) => id),
      label,
    ).toEqual(wanted)
  }
  expect(await listDeadLetters(sql, {}, { before: c, limit: 1 })).toMatchObject([{ id: b, signal: 'logs' }])
  expect(await discardDeadLetters(sql, { tenant: 'acme' }, everything)).toEqual({
    rows: 1,
    bytes: 1,
    lastId: c,
  })
  expect(await idsIn('dead_letter')).toEqual([a, b, d])
  expect(await replayDeadLetters(sql, { ids: [d, a] }, everything)).toEqual({ rows: 2, bytes: 2, lastId: d })
  expect(await idsIn('dead_letter')).toEqual([b])
  expect(await idsIn('ingestion_queue')).toEqual([a, d])
})

test.each([
  ['replayed', (ids: bigint[]) => replayDeadLetters(sql, { ids }, everything)],
  ['discarded', (ids: bigint[]) => discardDeadLetters(sql, { ids }, everything)],
])('a worker that buried a letter and lost the answer changes nothing once it was %s', async (what, move) => {
  await stageAll(database, [row('a')])
  const batch = await claimOne()
  const id = batch.rows[0]?.id ?? 0n
  await buryBatch(sql, batch, ['key'], burial)
  expect(await findSettled(sql, batch.batchId)).toBe(true)
  await move([id])
  expect(await findSettled(sql, batch.batchId)).toBe(false)
  // Another has the request by then, under another batch.
  const other = what === 'replayed' ? await claimOne() : undefined
  const before = [await staged(), await sql`SELECT * FROM ingestion_batch`]
  await absolveBatch(sql, batch.batchId)
  const outage = { countAttempt: false, countOutage: true, delayMs: 0, error: 'late' }
  expect(await buryBatch(sql, batch, ['key'], burial)).toBe('forgotten')
  expect(await failBatch(sql, batch, outage)).toBe('forgotten')
  expect(await splitBatch(sql, batch, ['key'], 'late')).toBe('forgotten')
  expect(await releaseBatch(sql, batch, ['key'])).toBe('forgotten')
  expect(await completeBatch(sql, batch, [])).toBe('forgotten')
  expect([await staged(), await sql`SELECT * FROM ingestion_batch`]).toEqual(before)
  expect(await idsIn('dead_letter')).toEqual([])
  expect(other?.rows.map((one) => one.id)).toEqual(what === 'replayed' ? [id] : undefined)
})
