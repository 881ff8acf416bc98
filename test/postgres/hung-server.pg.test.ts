import { afterAll, beforeAll, expect, test } from 'vitest'
import { requireSchema } from '../../src/postgres/migrate.ts'
import { ensureTraceIndexPartitions } from '../../src/postgres/partitions.ts'
import { answerOf, closePool, dropConnections, openPool, type Sql } from '../../src/postgres/pool.ts'
import { classifyPostgresError } from '../../src/postgres/sqlstate.ts'
import { statement } from '../../src/postgres/statement.ts'
import { manualClock } from '../support/clock.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { listen } from './fake-server.ts'

/** With `connections: 1` these wait for one another, however they are sent. */
const statements = [
  (sql: Sql) => sql`SELECT ${1}::int AS one`,
  (sql: Sql) => sql.unsafe('SELECT 2'),
  (sql: Sql) => sql`SELECT ${2}::bigint AS two`,
  (sql: Sql) => sql`SELECT 3 AS three`,
  (sql: Sql) => sql`SELECT ${4}::text AS four`,
]
const countBacklog = statement('queue/count_backlog')

let database: TestDatabase
beforeAll(async () => {
  database = await cloneDatabase()
})
afterAll(() => database.drop())

/** Runs `use` while the only session of the pool hangs. */
async function whileHung(sql: Sql, use: () => Promise<void>): Promise<void> {
  const [row] = await sql<[{ pid: number }]>`SELECT pg_backend_pid() AS pid`
  process.kill(row.pid, 'SIGSTOP')
  try {
    await use()
  } finally {
    process.kill(row.pid, 'SIGCONT')
  }
}

const codeOf = (work: PromiseLike<unknown>) =>
  Promise.resolve(work).then(
    () => 'answered',
    (thrown) => {
      const { kind, code } = classifyPostgresError(thrown)
      return `${kind} ${code}`
    },
  )

test.each([
  ['a statement of a file', (sql: Sql) => countBacklog(sql, [10, 0])],
  ['a look at the schema', (sql: Sql) => requireSchema(sql)],
  ['the making of partitions', (sql: Sql) => ensureTraceIndexPartitions(sql)],
])(
  '%s on a server that hangs is given up 5 s after its timeout, and the next one is answered',
  async (_, ask) => {
    const clock = manualClock()
    const sql = database.open({ connections: 1, statementTimeoutMs: 1_000, clock })
    await whileHung(sql, async () => {
      let settled = false
      const code = codeOf(ask(sql)).finally(() => {
        settled = true
      })
      const queued = codeOf(sql`SELECT 1`)
      await clock.advance(5_999)
      expect(settled).toBe(false)
      await clock.advance(1)
      expect(await code).toBe('outage ETIMEDOUT')
      expect(await queued).toMatch(/^outage CONNECTION_/)
      expect(await answerOf(sql, sql`SELECT 1 AS one`)).toEqual([{ one: 1 }])
    })
    await closePool(sql, 1_000)
  },
)

test('statements share one timer, which goes when the pool is closed or nothing has been asked for a while', async () => {
  const clock = manualClock()
  const sql = database.open({ connections: 1, statementTimeoutMs: 1_000, clock })
  await sql`SELECT 1`
  const before = clock.sleepers
  await Promise.all([answerOf(sql, sql`SELECT 1`), answerOf(sql, sql`SELECT 1`)])
  await expect(answerOf(sql, sql`SELECT 1 / 0`)).rejects.toMatchObject({ kind: 'data', code: '22012' })
  expect(clock.sleepers).toBe(before + 1)
  await clock.advance(6_000)
  expect(clock.sleepers).toBe(0)
  await answerOf(sql, sql`SELECT 1`)
  expect(clock.sleepers).toBe(1)
  await closePool(sql, 1_000)
  expect(clock.sleepers).toBe(0)
})

test('each statement has its own deadline, though they share a timer', async () => {
  const clock = manualClock()
  const sql = database.open({ connections: 1, statementTimeoutMs: 1_000, clock })
  await answerOf(sql, sql`SELECT 1`)
  await clock.advance(4_000)
  await whileHung(sql, async () => {
    let code: string | undefined
    const settled = codeOf(answerOf(sql, sql`SELECT 1`)).then((found) => {
      code = found
    })
    await clock.advance(5_999)
    expect(code).toBeUndefined()
    await clock.advance(1)
    await settled
    expect(code).toBe('outage ETIMEDOUT')
  })
  await closePool(sql, 1_000)
})

test('without a statement_timeout a statement may take for ever', async () => {
  const clock = manualClock()
  const sql = database.open({ connections: 1, statementTimeoutMs: 0, clock })
  const before = clock.sleepers
  const asked = answerOf(sql, sql`SELECT pg_sleep(0.05), 1 AS one`)
  expect(clock.sleepers).toBe(before)
  expect(await asked).toMatchObject([{ one: 1 }])
  await closePool(sql, 1_000)
})

test('a statement whose end postgres.js forgets is settled with its connections all the same', async () => {
  const sql = database.open({ connections: 1 })
  const code = codeOf(answerOf(sql, new Promise(() => undefined)))
  dropConnections(sql)
  expect(await code).toBe('outage CONNECTION_DESTROYED')
  expect(await sql`SELECT 1 AS one`).toEqual([{ one: 1 }])
  await closePool(sql, 1_000)
})

test('connections that are dropped take everything with them that waits for one, at once', async () => {
  const sql = database.open({ connections: 1 })
  await whileHung(sql, async () => {
    const codes = statements.map((send) => codeOf(send(sql)))
    // Lets them get as far as they can.
    expect(await Promise.race([codes[0], new Promise((resolve) => setTimeout(resolve, 50, 'waits'))])).toBe(
      'waits',
    )
    const started = performance.now()
    dropConnections(sql)
    expect((await Promise.all(codes)).filter((code) => !code.startsWith('outage CONNECTION_'))).toEqual([])
    expect(performance.now() - started).toBeLessThan(500)
    expect(await Promise.all(statements.map((send) => codeOf(send(sql))))).toEqual(
      statements.map(() => 'answered'),
    )
  })
  await closePool(sql, 1_000)
})

test('statements that wait for a silent server fail at once when its connections are dropped', async () => {
  const silent = await listen(() => undefined, database.location)
  const sql = openPool({ url: silent.location, name: 'silent', connections: 1, statementTimeoutMs: 1_000 })
  const codes = statements.map((send) => codeOf(send(sql)))
  expect(await Promise.race([codes[0], new Promise((resolve) => setTimeout(resolve, 50, 'waits'))])).toBe(
    'waits',
  )
  const started = performance.now()
  dropConnections(sql)
  expect((await Promise.all(codes)).filter((code) => !code.startsWith('outage CONNECTION_'))).toEqual([])
  expect(performance.now() - started).toBeLessThan(500)
  await closePool(sql, 100)
  await silent.close()
})

test('a pool waits for a silent server as long as it was told to', async () => {
  const silent = await listen(() => undefined, database.location)
  const sql = openPool({
    url: silent.location,
    name: 'silent',
    connections: 1,
    statementTimeoutMs: 1_000,
    connectTimeoutMs: 200,
  })
  const started = performance.now()
  expect(await codeOf(sql`SELECT 1`)).toBe('outage CONNECT_TIMEOUT')
  expect(performance.now() - started).toBeGreaterThan(190)
  expect(performance.now() - started).toBeLessThan(1_000)
  await closePool(sql, 100)
  await silent.close()
})

test('a pool that is closed while its server hangs is closed in time', async () => {
  const sql = database.open({ connections: 1 })
  await whileHung(sql, async () => {
    const codes = statements.map((send) => codeOf(send(sql)))
    const started = performance.now()
    await closePool(sql, 300)
    expect(performance.now() - started).toBeLessThan(1_000)
    expect((await Promise.all(codes)).filter((code) => !code.startsWith('outage CONNECTION_'))).toEqual([])
  })
})
