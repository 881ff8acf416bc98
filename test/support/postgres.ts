import { randomBytes } from 'node:crypto'
import { inject } from 'vitest'
import {
  type DatabaseLocation,
  databaseUrlWithPassword,
  parseDatabaseUrl,
} from '../../src/postgres/location.ts'
import { migrate } from '../../src/postgres/migrate.ts'
import { ensureTraceIndexPartitions } from '../../src/postgres/partitions.ts'
import { closePool, openPool, type PoolOptions, type Sql } from '../../src/postgres/pool.ts'
import { sharedServer } from './postgres-server.ts'

const LEAK_WAIT_MS = 2_000

/** A database with Sluice's schema that belongs to one test file. */
export interface TestDatabase {
  readonly location: DatabaseLocation
  /** The same as a `DATABASE_URL` with its password, for a process that a test starts. */
  readonly databaseUrl: string
  /** Opens a pool; `drop` fails when the test has not closed it. */
  open(options?: Partial<Omit<PoolOptions, 'url'>>): Sql
  /** Drops the database. Throws, naming them, when connections to it are still open: a test leaked them. */
  drop(): Promise<void>
}

/** The PostgreSQL server of this run, started by whoever asks first. The user is a superuser. */
export async function startTestServer(): Promise<DatabaseLocation> {
  return parseDatabaseUrl(await sharedServer(inject('postgresFolder')))
}

/** A fresh database with all migrations applied: a copy of a template, made in about 100 ms. */
export async function cloneDatabase(): Promise<TestDatabase> {
  const server = await startTestServer()
  const database = `test_${randomBytes(6).toString('hex')}`
  await asAdmin(server, async (admin) => {
    await ensureTemplate(server, admin)
    await admin.unsafe(`CREATE DATABASE ${database} TEMPLATE sluice_template`)
  })
  return testDatabase(server, database)
}

/** An empty database: nothing migrated. */
export async function emptyDatabase(): Promise<TestDatabase> {
  const server = await startTestServer()
  const database = `test_${randomBytes(6).toString('hex')}`
  await asAdmin(server, (admin) => admin.unsafe(`CREATE DATABASE ${database}`))
  return testDatabase(server, database)
}

function testDatabase(server: DatabaseLocation, database: string): TestDatabase {
  const location = { ...server, database }
  return {
    location,
    databaseUrl: databaseUrlWithPassword(location),
    open: (options = {}) =>
      openPool({ name: 'test', connections: 2, statementTimeoutMs: 20_000, ...options, url: location }),
    drop: () =>
      asAdmin(server, async (admin) => {
        const leaked = await connectionsLeft(admin, database)
        await admin.unsafe(`DROP DATABASE ${database} WITH (FORCE)`)
        if (leaked.length > 0) throw new Error(`connections left open: ${leaked.join(', ')}`)
      }),
  }
}

/** The names of the sessions that are still there after a while: a backend ends a moment after its client. */
async function connectionsLeft(admin: Sql, database: string): Promise<string[]> {
  for (const until = performance.now() + LEAK_WAIT_MS; ; ) {
    const rows = await admin<{ name: string }[]>`
      SELECT application_name AS name FROM pg_stat_activity
      WHERE datname = ${database} AND backend_type = 'client backend' ORDER BY 1`
    if (rows.length === 0 || performance.now() > until) return rows.map((row) => row.name)
    await admin`SELECT pg_sleep(0.02)`
  }
}

async function ensureTemplate(server: DatabaseLocation, admin: Sql): Promise<void> {
  await admin`SELECT pg_advisory_lock(4318)`
  try {
    const [found] = await admin`SELECT 1 FROM pg_database WHERE datname = 'sluice_template'`
    if (found !== undefined) return
    await admin.unsafe('CREATE DATABASE sluice_unfinished')
    const sql = openPool({
      url: { ...server, database: 'sluice_unfinished' },
      name: 'template',
      connections: 1,
      statementTimeoutMs: 60_000,
    })
    try {
      await migrate(sql)
      await ensureTraceIndexPartitions(sql)
    } finally {
      await closePool(sql, 2_000)
    }
    await admin.unsafe('ALTER DATABASE sluice_unfinished RENAME TO sluice_template')
  } finally {
    await admin`SELECT pg_advisory_unlock(4318)`
  }
}

async function asAdmin<T>(server: DatabaseLocation, use: (admin: Sql) => Promise<T>): Promise<T> {
  const admin = openPool({ url: server, name: 'admin', connections: 1, statementTimeoutMs: 60_000 })
  try {
    return await use(admin)
  } finally {
    await closePool(admin, 2_000)
  }
}
