import { afterAll, beforeAll, expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { closePool, openPool, type Sql } from '../../src/postgres/pool.ts'
import { checkServer } from '../../src/postgres/server-check.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { answer, listen, welcome } from './fake-server.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await cloneDatabase()
})
afterAll(() => database.drop())

const healthy = {
  version: '18.4',
  version_number: '180004',
  fsync: 'on',
  full_page_writes: 'on',
  is_standby: 'false',
}

async function refusal(sql: Sql): Promise<unknown> {
  try {
    await checkServer(sql)
    return undefined
  } catch (thrown) {
    return thrown
  }
}

/** What the check says to a server that answers with `facts`. */
async function refusalOf(facts: Record<string, string>): Promise<unknown> {
  const server = await listen((socket) => {
    socket.once('data', () => {
      socket.write(welcome)
      socket.on('data', (chunk) => {
        const isSetup = chunk.includes('set_config(')
        socket.write(
          isSetup
            ? answer([['on']], ['current_setting'])
            : answer([Object.values(facts)], Object.keys(facts)),
        )
      })
    })
  }, database.location)
  const sql = openPool({ url: server.location, name: 'check', connections: 1, statementTimeoutMs: 1_000 })
  try {
    return await refusal(sql)
  } finally {
    await closePool(sql, 1_000)
    await server.close()
  }
}

test('a real server passes, and the check leaves no connection behind', async () => {
  const sql = database.open()
  expect(await refusal(sql)).toBeUndefined()
  await closePool(sql, 1_000)
})

test.each([
  [
    { ...healthy, version: '14.9', version_number: '140009' },
    'The database server is PostgreSQL 14.9; Sluice needs 15 or newer.',
  ],
  [
    { ...healthy, is_standby: 'true' },
    'The database server is a standby, which takes no writes; point DATABASE_URL at the primary.',
  ],
  [
    { ...healthy, fsync: 'off' },
    'The database server runs with fsync=off, so a crash could undo what Sluice has confirmed; set fsync=on.',
  ],
  [
    { ...healthy, full_page_writes: 'off' },
    'The database server runs with full_page_writes=off, so a crash could undo what Sluice has confirmed; set ' +
      'full_page_writes=on.',
  ],
])('a server with %o is refused in a sentence', async (facts, sentence) => {
  expect(await refusalOf(facts)).toEqual(new Failure('configuration', sentence))
})

test('a real server with full_page_writes off is refused', async () => {
  // Reloaded, not restarted: the other tests' data are safe but for a crash of this machine in this second.
  const sql = database.open({ connections: 1 })
  const reload = async (value: string) => {
    await sql.unsafe(`ALTER SYSTEM SET full_page_writes = ${value}`)
    await sql`SELECT pg_reload_conf()`
    while ((await sql`SELECT 1 WHERE current_setting('full_page_writes') = ${value}`).length === 0) {
      await sql`SELECT pg_sleep(0.01)`
    }
  }
  await reload('off')
  try {
    expect(await refusal(sql)).toMatchObject({ kind: 'configuration' })
  } finally {
    await reload('on')
    await sql`ALTER SYSTEM RESET full_page_writes`
    await closePool(sql, 1_000)
  }
})

const pooled = new Failure(
  'configuration',
  'DATABASE_URL leads to a connection pooler in transaction mode, which takes our session settings away between two ' +
    'statements; use its session mode, or connect to PostgreSQL directly.',
)

test.each([
  ['one session for all clients', 1],
  ['another session for each statement', 3],
])('a pooler that lends %s is refused', async (_, size) => {
  const backends = Array.from({ length: size }, () => database.open({ name: 'backend', connections: 1 }))
  let turn = 0
  const pooler = await listen((socket) => {
    socket.once('data', () => {
      socket.write(welcome)
      socket.on('data', async (chunk) => {
        const backend = backends[turn++ % size] ?? backends[0]
        const results = await backend?.unsafe(chunk.toString('utf8', 5, chunk.length - 1)).values()
        // The setup has two statements, and its last row counts.
        const rows = (Array.isArray(results?.[0]?.[0]) ? results?.at(-1) : results) as unknown[][]
        const columns = (rows[0] ?? []).map((_, index) => `c${index}`)
        const names =
          columns.length === 5 ? Object.keys(healthy) : columns.length === 2 ? ['pid', 'marker'] : columns
        socket.write(
          answer(
            rows.map((row) => row.map(String)),
            names,
          ),
        )
      })
    })
  }, database.location)
  const sql = openPool({ url: pooler.location, name: 'pooled', connections: 1, statementTimeoutMs: 1_000 })
  expect(await refusal(sql)).toEqual(pooled)
  await closePool(sql, 1_000)
  await pooler.close()
  await Promise.all(backends.map((backend) => closePool(backend, 1_000)))
})
