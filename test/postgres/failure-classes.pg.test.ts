import { execFile } from 'node:child_process'
import { chmod, chown, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Failure, FailureKind } from '../../src/foundation/failure.ts'
import { type DatabaseLocation, parseDatabaseUrl, Secret } from '../../src/postgres/location.ts'
import { closePool, openPool, type Sql } from '../../src/postgres/pool.ts'
import { serverUser } from '../../src/postgres/server-user.ts'
import { classifyPostgresError } from '../../src/postgres/sqlstate.ts'
import { PostgresServer } from '../../stress/postgres-server.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'

const run = promisify(execFile)

let database: TestDatabase
let sql: Sql
beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open({ connections: 1 })
  await sql.unsafe(`
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE thing (
      id int NOT NULL UNIQUE CHECK (id < 100),
      parent int REFERENCES parent,
      short varchar(1),
      long text,
      number int GENERATED ALWAYS AS IDENTITY
    );
    CREATE INDEX ON thing (long);
    CREATE TABLE room (during int4range, EXCLUDE USING gist (during WITH &&));
    INSERT INTO thing (id) VALUES (1), (2);
    INSERT INTO room VALUES ('[1,5)');`)
})
afterAll(async () => {
  await closePool(sql, 1_000)
  await database.drop()
})

/** What the server's refusal becomes. */
async function failureOf(asked: PromiseLike<unknown>): Promise<Failure> {
  return await asked.then(
    (answer) => {
      throw new Error(`the server did not refuse: ${JSON.stringify(answer)}`)
    },
    (thrown: unknown) => classifyPostgresError(thrown),
  )
}

/** A failure of the configuration says what to fix, and no other does. */
function expectClass(failure: Failure, kind: FailureKind, code: string): void {
  expect({ kind: failure.kind, code: failure.code }).toEqual({ kind, code })
  expect(typeof failure.fix).toBe(kind === 'configuration' ? 'string' : 'undefined')
}

/** A session of its own, for what changes or ends one. */
async function withSession<T>(use: (session: Sql) => Promise<T>, location = database.location): Promise<T> {
  const session = openPool({ url: location, name: 'case', connections: 1, statementTimeoutMs: 20_000 })
  try {
    return await use(session)
  } finally {
    await closePool(session, 500)
  }
}

const inTransaction = (body: string) => `BEGIN; ${body}; COMMIT`

test.each<[FailureKind, string, string]>([
  ['data', '22001', `INSERT INTO thing (id, short) VALUES (3, 'xy')`],
  ['data', '22003', 'SELECT 2147483647::int + 1'],
  ['data', '22012', 'SELECT 1 / 0'],
  ['data', '22021', `SELECT convert_from('\\xff', 'UTF8')`],
  ['data', '22P02', `SELECT 'x'::int`],
  ['data', '22P05', `SELECT '{"a": "\\u0000"}'::jsonb ->> 'a'`],
  ['data', '23502', 'INSERT INTO thing (id) VALUES (NULL)'],
  ['data', '23503', 'INSERT INTO thing (id, parent) VALUES (3, 7)'],
  ['data', '23505', 'INSERT INTO thing (id) VALUES (1)'],
  ['data', '23514', 'INSERT INTO thing (id) VALUES (100)'],
  ['data', '23P01', `INSERT INTO room VALUES ('[4,6)')`],
  [
    'data',
    '54000',
    `INSERT INTO thing (id, long) SELECT 3, string_agg(md5(i::text), '') FROM generate_series(1, 9000) AS i`,
  ],
  [
    'data',
    '54011',
    `DO $$ BEGIN EXECUTE 'CREATE TABLE wide (' || (SELECT string_agg('c' || i || ' int', ',')
    FROM generate_series(1, 1601) AS i) || ')'; END $$`,
  ],
  [
    'outage',
    '0A000',
    'PREPARE kept AS SELECT * FROM parent; ALTER TABLE parent ADD COLUMN more int; EXECUTE kept',
  ],
  ['outage', '25006', inTransaction('SET TRANSACTION READ ONLY; DELETE FROM thing')],
  [
    'outage',
    '53400',
    `SET temp_file_limit = '64kB'; SET work_mem = '64kB';
    SELECT count(*) FROM (SELECT i FROM generate_series(1, 500000) AS i ORDER BY random()) AS sorted`,
  ],
  ['outage', '55000', `SELECT currval('thing_number_seq')`],
  ['outage', '57014', `SET statement_timeout = '20ms'; SELECT pg_sleep(10)`],
  ['outage', '58P01', `LOAD 'no_such_library'`],
  ['configuration', '22023', `SELECT set_config('client_min_messages', 'nonsense', false)`],
  ['configuration', '26000', 'EXECUTE never_prepared'],
  ['configuration', '3F000', 'CREATE TABLE nowhere.thing ()'],
  ['configuration', '42703', 'SELECT nothing FROM thing'],
  ['configuration', '42704', `SELECT 'x'::no_such_type`],
  ['configuration', '42804', `INSERT INTO thing (id) SELECT 'x'::text`],
  ['configuration', '42883', 'SELECT no_such_function()'],
  ['configuration', '428C9', 'INSERT INTO thing (id, number) VALUES (3, 7)'],
  ['configuration', '42P01', 'SELECT FROM no_such_table'],
  ['configuration', '42P05', 'PREPARE twice AS SELECT 1; PREPARE twice AS SELECT 1'],
  ['configuration', '42P10', `INSERT INTO thing (id) VALUES (3) ON CONFLICT (long) DO NOTHING`],
  ['configuration', '55P02', `SET shared_buffers = '1GB'`],
  ['bug', '21000', 'SELECT (SELECT id FROM thing)'],
  ['bug', '42601', 'SELEC 1'],
  ['bug', 'P0001', `DO $$ BEGIN RAISE 'said'; END $$`],
])('a real server: %s is %s', async (kind, code, statements) => {
  await withSession(async (session) => {
    expectClass(await failureOf(session.unsafe(statements)), kind, code)
  })
})

test('a real server: a message that does not fit the protocol is an outage, 08P01', async () => {
  await withSession(async (session) => {
    const asked = session.unsafe('SELECT $1::int, $2::int', [1], { prepare: true })
    expectClass(await failureOf(asked), 'outage', '08P01')
  })
})

test('a real server: two transactions of which one must be undone are an outage, 40001 and 40P01', async () => {
  await withSession(async (one) => {
    await withSession(async (other) => {
      for (const session of [one, other]) {
        await session.unsafe('BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM thing')
      }
      await one.unsafe(
        'INSERT INTO parent (id) SELECT count(*) + 10 FROM thing; UPDATE thing SET short = NULL WHERE id = 1; COMMIT',
      )
      expectClass(
        await failureOf(other.unsafe('UPDATE thing SET short = NULL WHERE id = 1')),
        'outage',
        '40001',
      )
      await other.unsafe('ROLLBACK')
      for (const [session, id] of [
        [one, 1],
        [other, 2],
      ] as const) {
        await session.unsafe(
          `SET deadlock_timeout = '20ms'; BEGIN; UPDATE thing SET short = NULL WHERE id = ${id}`,
        )
      }
      const both = await Promise.allSettled([
        one.unsafe('UPDATE thing SET short = NULL WHERE id = 2'),
        other.unsafe('UPDATE thing SET short = NULL WHERE id = 1'),
      ])
      const refused = both.find((result) => result.status === 'rejected')
      expectClass(classifyPostgresError(refused?.reason), 'outage', '40P01')
      for (const session of [one, other]) await session.unsafe('ROLLBACK')
    })
  })
})

test('a real server: a lock that is not to be had, and a database in use, are outages, 55P03 and 55006', async () => {
  await withSession(async (holder) => {
    await holder.unsafe('BEGIN; LOCK TABLE thing')
    expectClass(await failureOf(sql.unsafe(inTransaction('LOCK TABLE thing NOWAIT'))), 'outage', '55P03')
    await sql.unsafe('ROLLBACK')
    await holder.unsafe('ROLLBACK')
  })
  expectClass(await failureOf(sql.unsafe(`DROP DATABASE ${database.location.database}`)), 'outage', '55006')
})

test('a real server: wrong credentials, a role or a database that is not, and a missing right are faults of the configuration', async () => {
  const user = `poor_${database.location.database}`
  const { location } = database
  const ask = (changes: Partial<DatabaseLocation>, statement = 'SELECT 1') =>
    withSession((session) => failureOf(session.unsafe(statement)), { ...location, ...changes })
  await sql.unsafe(`CREATE ROLE ${user} LOGIN PASSWORD 'word'`)
  try {
    const password = new Secret('word')
    expectClass(await ask({ user, password: new Secret('wrong') }), 'configuration', '28P01')
    expectClass(await ask({ database: 'no_such_database' }), 'configuration', '3D000')
    expectClass(await ask({ user, password }, 'SELECT FROM thing'), 'configuration', '42501')
    await sql.unsafe(`ALTER ROLE ${user} NOLOGIN`)
    expectClass(await ask({ user, password }), 'configuration', '28000')
    await sql.unsafe(`ALTER ROLE ${user} LOGIN CONNECTION LIMIT 0`)
    expectClass(await ask({ user, password }), 'outage', '53300')
  } finally {
    await sql.unsafe(`DROP ROLE ${user}`)
  }
})

test('a real server: a session that an administrator ends is an outage, 57P01', async () => {
  await withSession(async (session) => {
    const [own] = await session<{ pid: number }[]>`SELECT pg_backend_pid() AS pid`
    const asked = failureOf(session`SELECT pg_sleep(20)`)
    await expect
      .poll(
        async () =>
          (await sql`SELECT 1 FROM pg_stat_activity WHERE pid = ${own?.pid ?? 0} AND state = 'active'`)
            .length,
      )
      .toBe(1)
    await sql`SELECT pg_terminate_backend(${own?.pid ?? 0})`
    expectClass(await asked, 'outage', '57P01')
  })
})

test('a real server: a full disk is an outage, 53100, and over when there is room', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-full-disk-'))
  // A server of its own: what a full disk does to it must not reach the other tests.
  const server = await PostgresServer.start()
  try {
    await run('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder]).catch((error: unknown) => {
      throw new Error(
        'This test mounts a tmpfs of 1 MiB and may not: run it as root in a container that may.',
        {
          cause: error,
        },
      )
    })
    const owner = serverUser()
    const inside = join(folder, 'space')
    await mkdir(inside)
    await chmod(folder, 0o711)
    if (owner !== undefined) await chown(inside, owner.uid, owner.gid)
    await withSession(
      async (session) => {
        await session.unsafe(`CREATE TABLESPACE full_space LOCATION '${inside}'`)
        await session.unsafe(`CREATE TABLE filling (line text) TABLESPACE full_space`)
        const fill = `INSERT INTO filling SELECT repeat(md5(i::text), 40) FROM generate_series(1, 3000) AS i`
        expectClass(await failureOf(session.unsafe(fill)), 'outage', '53100')
        await run('mount', ['-o', 'remount,size=32m', folder])
        await session.unsafe(fill)
      },
      parseDatabaseUrl(server.url('postgres')),
    )
  } finally {
    await server.stop()
    await run('umount', [folder]).catch(() => undefined)
    await rm(folder, { recursive: true, force: true })
  }
}, 90_000)

test('a real server: no memory for locks, a crash of a backend and a stop are outages, 53200, 57P02, 57P03', async () => {
  const server = await PostgresServer.start()
  const location = parseDatabaseUrl(server.url('postgres'))
  try {
    await withSession(async (session) => {
      const locks = 'SELECT count(pg_advisory_xact_lock(i)) FROM generate_series(1, 100000) AS i'
      expectClass(await failureOf(session.unsafe(locks)), 'outage', '53200')
    }, location)
    await withSession(async (bystander) => {
      await withSession(async (victim) => {
        const [own] = await victim<{ pid: number }[]>`SELECT pg_backend_pid() AS pid`
        const asked = failureOf(bystander`SELECT pg_sleep(20)`)
        const active = () =>
          victim`SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(20)%' AND pid <> ${own?.pid ?? 0} AND state = 'active'`
        await expect.poll(async () => (await active()).length).toBe(1)
        process.kill(own?.pid ?? 0, 'SIGKILL')
        // The server says 57P02 as a warning, and then hangs up.
        expectClass(await asked, 'outage', 'CONNECTION_CLOSED')
      }, location)
    }, location)
    await expect
      .poll(
        () =>
          withSession(
            (session) =>
              session`SELECT 1`.then(
                () => 'up',
                () => 'down',
              ),
            location,
          ),
        {
          timeout: 20_000,
        },
      )
      .toBe('up')
    await withSession(async (holder) => {
      await holder`SELECT 1`
      // A smart stop waits for its sessions and lets nobody else in.
      process.kill(server.pid, 'SIGTERM')
      const refused = () => withSession((session) => failureOf(session`SELECT 1`), location)
      await expect
        .poll(async () => (await refused().catch(() => undefined))?.code, { timeout: 10_000 })
        .toBe('57P03')
      expectClass(await refused(), 'outage', '57P03')
    }, location)
  } finally {
    await server.stop()
  }
}, 90_000)
