import { afterAll, beforeAll, expect, test } from 'vitest'
import { copyIn, copyOut } from '../../src/postgres/copy.ts'
import { answerOf, closePool } from '../../src/postgres/pool.ts'
import { classifyPostgresError } from '../../src/postgres/sqlstate.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'

const RUN_MS = Number(process.env.CHAOS_MS ?? 4_000)
/** A statement waits for one dead connection and for a new one, on a machine that others load too. */
const ANSWER_MS_MAX = 4_000

let database: TestDatabase
beforeAll(async () => {
  database = await cloneDatabase()
})
afterAll(() => database.drop())

test('while backends are killed every statement is answered, with rows or as an outage, and none is lost', async () => {
  const victim = database.open({ name: 'victim', connections: 3 })
  const killer = database.open({ name: 'killer', connections: 1 })
  const copyText = 'COPY copied FROM STDIN'
  await killer`CREATE TABLE copied (number int)`
  const until = performance.now() + RUN_MS
  const statements = [
    () => victim`SELECT 1 AS one`,
    () => victim`SELECT ${1}::int AS one, pg_sleep(0.002)`,
    () => victim.unsafe('SELECT 0 AS one; SELECT 1 AS one'),
    async () => {
      const pieces = [Buffer.from('1\n'), Buffer.from('2\n')]
      const rows = await answerOf(victim, copyIn(victim, `${copyText}; SELECT count(*) FROM copied`, pieces))
      expect(rows).toHaveLength(1)
    },
    async () => {
      const text = 'COPY (SELECT number FROM generate_series(1, 300) AS number) TO STDOUT'
      const pieces = await answerOf(victim, copyOut(victim, text))
      expect(pieces.map(String)).toEqual(Array.from({ length: 300 }, (_, place) => `${place + 1}\n`))
    },
  ]
  const failures = new Map<string, string>()
  let answered = 0
  let slowestMs = 0

  async function client(statement: () => PromiseLike<unknown>): Promise<void> {
    while (performance.now() < until) {
      const started = performance.now()
      try {
        await statement()
        answered++
      } catch (thrown) {
        const { kind, message } = classifyPostgresError(thrown)
        failures.set(kind, message)
      }
      slowestMs = Math.max(slowestMs, performance.now() - started)
    }
  }
  async function kill(): Promise<void> {
    while (performance.now() < until) {
      await killer`
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'victim' AND datname = current_database() AND random() < 0.7`
      await killer`SELECT pg_sleep(0.02)`
    }
  }

  await Promise.all([
    kill(),
    ...Array.from({ length: 4 }, () => statements)
      .flat()
      .map(client),
  ])
  expect([...failures.keys()]).toEqual(['outage'])
  expect(answered).toBeGreaterThan(50)
  expect(slowestMs).toBeLessThan(ANSWER_MS_MAX)
  expect(await victim`SELECT 1 AS one`).toEqual([{ one: 1 }])
  await closePool(victim, 1_000)
  await closePool(killer, 1_000)
})

test('a COPY whose backend is killed fails, and its connection is replaced', async () => {
  const sql = database.open({ name: 'copier', connections: 1 })
  const killer = database.open({ name: 'killer', connections: 1 })
  await sql`SELECT 1`
  const stream = await sql.unsafe('COPY abandoned_batch (batch_id, keys) FROM STDIN').writable()
  const failed = new Promise<Error>((resolve) => stream.once('error', resolve))
  await killer`
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'copier' AND datname = current_database()`
  expect(classifyPostgresError(await failed).kind).toBe('outage')
  expect(await sql`SELECT count(*) FROM abandoned_batch`).toEqual([{ count: 0n }])
  await closePool(sql, 1_000)
  await closePool(killer, 1_000)
})

test('what is copied out is answered after its commit: one that fails at its end is no answer', async () => {
  const sql = database.open({ name: 'copier', connections: 1 })
  await sql.unsafe(`
    CREATE TABLE deferred (number int UNIQUE DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO deferred VALUES (1)`)
  const twice = 'COPY (INSERT INTO deferred VALUES (2), (2) RETURNING number) TO STDOUT'
  await expect(answerOf(sql, copyOut(sql, twice))).rejects.toMatchObject({ code: '23505' })
  const once = 'COPY (INSERT INTO deferred VALUES (2) RETURNING number) TO STDOUT'
  expect((await answerOf(sql, copyOut(sql, once))).map(String)).toEqual(['2\n'])
  await expect(answerOf(sql, copyOut(sql, 'COPY nothing TO STDOUT'))).rejects.toMatchObject({ code: '42P01' })
  expect((await answerOf(sql, copyOut(sql, 'COPY deferred TO STDOUT'))).map(String)).toEqual(['1\n', '2\n'])
  await closePool(sql, 1_000)
})
