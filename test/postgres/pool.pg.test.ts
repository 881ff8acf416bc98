import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { closePool, dropConnections, type Notice, openPool, type Sql } from '../../src/postgres/pool.ts'
import { classifyPostgresError } from '../../src/postgres/sqlstate.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { answer, listen, welcome } from './fake-server.ts'

let database: TestDatabase
let observer: Sql
beforeAll(async () => {
  database = await cloneDatabase()
  observer = database.open({ name: 'observer', connections: 1 })
})
afterAll(async () => {
  await closePool(observer, 1_000)
  await database.drop()
})

/** Opens a pool, hands it to `use`, and closes it. */
async function withPool<T>(
  options: Parameters<TestDatabase['open']>[0],
  use: (sql: Sql) => Promise<T>,
): Promise<T> {
  const sql = database.open(options)
  try {
    return await use(sql)
  } finally {
    await closePool(sql, 1_000)
  }
}

async function failureOf(
  work: PromiseLike<unknown>,
): Promise<{ kind: string; code: string | undefined; message: string }> {
  try {
    await work
  } catch (thrown) {
    const { kind, code, message } = classifyPostgresError(thrown)
    return { kind, code, message }
  }
  throw new Error('it should have failed')
}

const settings = (sql: Sql) => sql`
  SELECT
    current_setting('application_name') AS name,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('statement_timeout') AS statement_timeout,
    current_setting('client_min_messages') AS messages,
    current_setting('plan_cache_mode') AS plans,
    current_setting('timezone') AS zone`

test('every session is set up before its first statement, whatever the role says, and so is the one after it', async () => {
  await observer.unsafe(`
    ALTER ROLE sluice IN DATABASE ${database.location.database} SET synchronous_commit = off;
    ALTER ROLE sluice IN DATABASE ${database.location.database} SET datestyle = 'German'`)
  await withPool(
    { name: 'settings', statementTimeoutMs: 1234, planCacheMode: 'force_generic_plan' },
    async (sql) => {
      const expected = [
        {
          name: 'settings',
          synchronous_commit: 'on',
          statement_timeout: '1234ms',
          messages: 'warning',
          plans: 'force_generic_plan',
          zone: 'UTC',
        },
      ]
      expect(await settings(sql)).toEqual(expected)
      const [before] = await sql`SELECT pg_backend_pid() AS pid`
      dropConnections(sql)
      expect(await settings(sql)).toEqual(expected)
      const [after] = await sql`SELECT pg_backend_pid() AS pid`
      expect(after?.pid).not.toBe(before?.pid)
      expect(await sql`SELECT '2026-11-25T01:02:03.004Z'::timestamptz AS at`).toEqual([
        { at: new Date('2026-11-25T01:02:03.004Z') },
      ])
    },
  )
})

test('a server that makes something else of synchronous_commit is refused, before any statement of ours', async () => {
  const statements: string[] = []
  const server = await listen((socket) => {
    socket.once('data', () => {
      socket.write(welcome)
      socket.on('data', (chunk) => {
        statements.push(chunk.toString('utf8', 5).slice(0, 17))
        socket.write(answer([['local']], ['current_setting']))
      })
    })
  }, database.location)
  const sql = openPool({ url: server.location, name: 'refused', connections: 1, statementTimeoutMs: 1_000 })
  expect(await failureOf(sql`SELECT 1`)).toEqual({
    kind: 'configuration',
    code: undefined,
    message:
      'synchronous_commit was set to on and reads back as local: something between Sluice and PostgreSQL changes it, ' +
      'so an answer 200 would not mean that the data is on disk.',
  })
  expect(statements).toEqual(['SELECT set_config'])
  await closePool(sql, 1_000)
  await server.close()
})

test('64-bit numbers are exact, alone and in arrays, and text arrays keep every character', async () => {
  await withPool({}, async (sql) => {
    const [row] = await sql`
      SELECT 9223372036854775807 AS one, ARRAY[9007199254740993, NULL, -1]::bigint[] AS many, '{}'::bigint[] AS none,
        ARRAY['a"b', 'c\\d', 'e,f', '', 'NULL', NULL, 'ö{}'] AS texts, ARRAY[3, 4]::int[] AS integers,
        ARRAY['019abcde-0000-7000-8000-000000000001'::uuid] AS uuids`
    expect(row).toEqual({
      one: 9223372036854775807n,
      many: [9007199254740993n, null, -1n],
      none: [],
      texts: ['a"b', 'c\\d', 'e,f', '', 'NULL', null, 'ö{}'],
      integers: [3, 4],
      uuids: ['019abcde-0000-7000-8000-000000000001'],
    })
    const texts = ['a"b', 'c\\d', 'e,f', '', 'NULL', 'ö{}']
    expect(await sql`SELECT ${9007199254740993n} AS one, ${texts}::text[] AS texts`).toEqual([
      { one: 9007199254740993n, texts },
    ])
  })
})

test('warnings arrive, and nothing below them', async () => {
  const notices: Notice[] = []
  await withPool({ onNotice: (notice) => notices.push(notice) }, async (sql) => {
    await sql.unsafe(`DO $$ BEGIN RAISE NOTICE 'low'; RAISE WARNING 'high'; END $$`)
  })
  expect(notices.map(({ severity, message }) => ({ severity, message }))).toEqual([
    { severity: 'WARNING', message: 'high' },
  ])
})

test('a small write after a small write leaves at once', async () => {
  // Without TCP_NODELAY each of these waits 40 ms for the acknowledgement of the one before.
  const proxy = await listen((client) => {
    const upstream = connect(`${database.location.host}/.s.PGSQL.${database.location.port}`)
    upstream.on('error', () => client.destroy())
    client.pipe(upstream).pipe(client)
  }, database.location)
  const sql = openPool({ url: proxy.location, name: 'tcp', connections: 1, statementTimeoutMs: 5_000 })
  const took: number[] = []
  for (let i = 0; i < 20; i++) {
    const started = performance.now()
    const stream = await sql
      .unsafe('COPY pg_temp.copied FROM STDIN')
      .writable()
      .catch(() => undefined)
    if (stream === undefined) await sql.unsafe('CREATE TEMP TABLE copied (a text)')
    else {
      stream.write('a\n')
      stream.end('b\n')
      await once(stream, 'finish')
    }
    took.push(performance.now() - started)
  }
  took.sort((a, b) => a - b)
  expect(took[10]).toBeLessThan(30)
  await closePool(sql, 1_000)
  await proxy.close()
})

test.each([
  ['refuses connections', 'ECONNREFUSED', 500, undefined],
  ['accepts and says nothing', 'CONNECT_TIMEOUT', 2_500, () => undefined],
  ['accepts and closes at once', 'CONNECTION_CLOSED', 500, (socket: { end: () => void }) => socket.end()],
] as const)(
  'a server that %s is an outage, soon, for every statement that waits',
  async (_, code, withinMs, behave) => {
    const server = await listen((socket) => behave?.(socket), database.location)
    if (behave === undefined) await server.close()
    const sql = openPool({ url: server.location, name: 'away', connections: 2, statementTimeoutMs: 1_000 })
    const started = performance.now()
    const failures = await Promise.all([failureOf(sql`SELECT 1`), failureOf(sql`SELECT 2`)])
    expect(performance.now() - started).toBeLessThan(withinMs)
    expect(failures.map((failure) => [failure.kind, failure.code])).toEqual([
      ['outage', code],
      ['outage', code],
    ])
    const closing = performance.now()
    await closePool(sql, 500)
    expect(performance.now() - closing).toBeLessThan(1_000)
    if (behave !== undefined) await server.close()
  },
)

test('a database that came back is used within a second, however long it was away', async () => {
  let isUp = false
  const proxy = await listen((client) => {
    if (!isUp) return client.destroy()
    const upstream = connect(`${database.location.host}/.s.PGSQL.${database.location.port}`)
    upstream.on('error', () => client.destroy())
    client.pipe(upstream).pipe(client)
  }, database.location)
  const sql = openPool({ url: proxy.location, name: 'back', connections: 1, statementTimeoutMs: 1_000 })
  for (let i = 0; i < 20; i++) expect((await failureOf(sql`SELECT 1`)).kind).toBe('outage')
  isUp = true
  const started = performance.now()
  expect(await sql`SELECT 1 AS one`).toEqual([{ one: 1 }])
  expect(performance.now() - started).toBeLessThan(1_000)
  await closePool(sql, 1_000)
  await proxy.close()
})

test('closing a pool ends what runs for too long, in time, and takes no new statements', async () => {
  const sql = database.open({ name: 'closing', connections: 1 })
  await sql`SELECT 1`
  const running = failureOf(sql`SELECT pg_sleep(30)`)
  const started = performance.now()
  await closePool(sql, 200)
  expect(performance.now() - started).toBeLessThan(1_000)
  expect((await running).kind).toBe('outage')
  expect(await failureOf(sql`SELECT 1`)).toMatchObject({ kind: 'outage', code: 'CONNECTION_ENDED' })
})

test('read-only failover is an outage that drops the connection, and is over without a restart', async () => {
  const name = 'failover'
  await withPool({ name, connections: 1 }, async (sql) => {
    const insert = () => sql`INSERT INTO abandoned_batch (batch_id, keys) VALUES (gen_random_uuid(), '{}')`
    await insert()
    const [before] = await sql`SELECT pg_backend_pid() AS pid`
    await observer.unsafe(
      `ALTER DATABASE ${database.location.database} SET default_transaction_read_only = on`,
    )
    dropConnections(sql)
    expect(await failureOf(insert())).toMatchObject({ kind: 'outage', code: '25006' })
    expect(await failureOf(insert())).toMatchObject({ kind: 'outage', code: '25006' })
    await observer.unsafe(`
      SET default_transaction_read_only = off;
      ALTER DATABASE ${database.location.database} RESET default_transaction_read_only`)
    // The refused session is closed a moment after it told so; the one after it is a new one.
    await untilTrue(async () => {
      const rows = await observer`SELECT 1 FROM pg_stat_activity WHERE application_name = ${name}`
      return rows.length === 0
    })
    await insert()
    const [after] = await sql`SELECT pg_backend_pid() AS pid`
    expect(after?.pid).not.toBe(before?.pid)
  })
})

async function untilTrue(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await observer`SELECT pg_sleep(0.01)`
}
