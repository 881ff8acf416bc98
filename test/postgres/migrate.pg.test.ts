import { cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { migrate, requireSchema } from '../../src/postgres/migrate.ts'
import { ensureTraceIndexPartitions } from '../../src/postgres/partitions.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { classifyPostgresError, isMissingPartition } from '../../src/postgres/sqlstate.ts'
import { sqlFolder } from '../../src/postgres/statement.ts'
import { emptyDatabase, type TestDatabase } from '../support/postgres.ts'

const landed = join(sqlFolder(), 'migrations')
const names = readdirSync(landed).sort()
const [firstName = ''] = names

let database: TestDatabase
let sql: Sql
let folder: string
beforeEach(async () => {
  database = await emptyDatabase()
  sql = database.open()
  folder = mkdtempSync(join(tmpdir(), 'sluice-migrations-'))
  cpSync(landed, folder, { recursive: true })
})
afterEach(async () => {
  rmSync(folder, { recursive: true })
  await closePool(sql, 1_000)
  await database.drop()
})

const journal = async () =>
  (await sql<{ name: string }[]>`SELECT name FROM schema_migration ORDER BY name`).map((row) => row.name)

async function failureOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work
    return undefined
  } catch (thrown) {
    return thrown
  }
}

test('every migration is applied once, in the order of the names, and the journal says so', async () => {
  expect(await migrate(sql)).toEqual({ applied: names })
  expect(await journal()).toEqual(names)
  expect(await migrate(sql)).toEqual({ applied: [] })
  expect(await sql`SELECT count(*) FROM ingestion_queue`).toEqual([{ count: 0n }])
})

test('eight first starts at once apply each migration exactly once between them', async () => {
  const pools = Array.from({ length: 8 }, () => database.open({ connections: 1 }))
  const results = await Promise.all(pools.map((pool) => migrate(pool)))
  expect(results.flatMap(({ applied }) => applied).sort()).toEqual(names)
  expect(await journal()).toEqual(names)
  await Promise.all(pools.map((pool) => closePool(pool, 1_000)))
})

test('a migration that fails leaves nothing of itself behind, and what was applied before it stays', async () => {
  writeFileSync(join(folder, '9998_half.sql'), 'CREATE TABLE half (a int); SELECT 1 / 0;')
  expect(await failureOf(migrate(sql, folder))).toMatchObject({
    kind: 'data',
    code: '22012',
    message: 'The migration 9998_half.sql failed: the database refuses a value: division by zero',
  })
  expect(await journal()).toEqual(names)
  expect(await sql`SELECT to_regclass('half') AS half`).toEqual([{ half: null }])
  writeFileSync(join(folder, '9998_half.sql'), 'CREATE TABLE half (a int)')
  expect(await migrate(sql, folder)).toEqual({ applied: ['9998_half.sql'] })
})

test('a migration that was changed after it was applied is refused, by every way in', async () => {
  await migrate(sql, folder)
  writeFileSync(join(folder, firstName), '-- changed')
  const refusal = new Failure(
    'configuration',
    `sql/migrations/${firstName} was changed after it had been applied to this database. Restore the file; a change of ` +
      'the schema needs a migration of its own.',
  )
  expect(await failureOf(migrate(sql, folder))).toEqual(refusal)
  expect(await failureOf(requireSchema(sql, folder))).toEqual(refusal)
})

test('a database that a newer version has migrated is refused', async () => {
  writeFileSync(join(folder, '9999_later.sql'), 'CREATE TABLE later ()')
  await migrate(sql, folder)
  const refusal = new Failure(
    'configuration',
    'The database has 9999_later.sql, which this version of Sluice does not know: it was migrated by a newer one. Start ' +
      'that version.',
  )
  expect(await failureOf(migrate(sql))).toEqual(refusal)
  expect(await failureOf(requireSchema(sql))).toEqual(refusal)
})

test('a schema that is not there yet is missed by name, and no longer once it is', async () => {
  expect(await failureOf(requireSchema(sql))).toEqual(
    new Failure(
      'configuration',
      `The database lacks ${names.join(', ')}; run \`sluice migrate\` against it first.`,
    ),
  )
  await migrate(sql)
  expect(await failureOf(requireSchema(sql))).toBeUndefined()
})

test('partitions of trace_index are there for today and the days ahead, whoever makes them first', async () => {
  await migrate(sql)
  const pools = Array.from({ length: 6 }, () => database.open({ connections: 1 }))
  await Promise.all(pools.map((pool) => ensureTraceIndexPartitions(pool, 2)))
  await Promise.all(pools.map((pool) => closePool(pool, 1_000)))
  const partitions = await sql<{ name: string }[]>`
    SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'trace_index'::regclass ORDER BY 1`
  const days = await sql<{ name: string }[]>`
    SELECT 'trace_index_' || to_char((now() AT TIME ZONE 'UTC')::date + n, 'YYYYMMDD') AS name
    FROM generate_series(0, 2) AS n ORDER BY 1`
  expect(partitions).toEqual(days)
})

test('who waits for another to make a partition finds it made', async () => {
  await migrate(sql)
  const [first, second] = [database.open({ connections: 1 }), database.open({ connections: 1 })] as const
  await first.unsafe(`BEGIN; SELECT ensure_trace_index_partition('2030-01-01')`)
  const waiting = second`SELECT ensure_trace_index_partition('2030-01-01')`.execute()
  while ((await sql`SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`).length === 0) {
    await sql`SELECT pg_sleep(0.01)`
  }
  await first.unsafe('COMMIT')
  await waiting
  expect(await sql`SELECT to_regclass('trace_index_20300101')::text AS name`).toEqual([
    { name: 'trace_index_20300101' },
  ])
  await closePool(first, 1_000)
  await closePool(second, 1_000)
})

test('a row without a partition is told apart from a violated constraint, and goes in once the partition is there', async () => {
  await migrate(sql)
  const insert = () => sql`INSERT INTO trace_index VALUES (1, '019abcde-0000-7000-8000-000000000001', 0)`
  const thrown = await failureOf(insert())
  expect(isMissingPartition(thrown)).toBe(true)
  expect(classifyPostgresError(thrown)).toMatchObject({ kind: 'outage', code: '23514' })
  await sql`SELECT ensure_trace_index_partition('2025-11-25'::date)`
  await insert()
  const violated = await failureOf(
    sql`INSERT INTO ingestion_batch (batch_id, lease_token, lease_until, claimed_at, bytes, rows, status, lease_owner)
      VALUES (gen_random_uuid(), gen_random_uuid(), now(), now(), 0, 0, 'odd', '')`,
  )
  expect(isMissingPartition(violated)).toBe(false)
  expect(classifyPostgresError(violated)).toMatchObject({ kind: 'data', code: '23514' })
})
