import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../foundation/failure.ts'
import { answerOf, type Sql } from './pool.ts'
import { classifyPostgresError } from './sqlstate.ts'
import { sqlFolder } from './statement.ts'

/** `pg_advisory_xact_lock` key: whoever migrates, in any process, on any machine. */
const MIGRATION_LOCK = 4_318_001
const TRIES_MAX = 100
const UNIQUE_VIOLATION = '23505'

interface Migration {
  readonly name: string
  readonly text: string
  readonly checksum: string
}

/**
 * Applies the files of `sql/migrations` that the database has not seen, in the order of their names. Each is one
 * transaction with its entry in `schema_migration`, under a lock, so that any number of processes may start at once.
 *
 * @returns the names of the files that this call applied.
 * @throws Failure `configuration` when a file was changed after it was applied or the database is newer than the code.
 */
export async function migrate(sql: Sql, folder?: string): Promise<{ applied: string[] }> {
  const migrations = migrationsIn(folder)
  const applied: string[] = []
  if (!(await hasJournal(sql))) await createJournal(sql)
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    const [next] = missing(migrations, await readJournal(sql))
    if (next === undefined) return { applied }
    if (await apply(sql, next)) applied.push(next.name)
  }
  throw new Failure('bug', `after ${TRIES_MAX} tries there are still migrations to apply`)
}

/**
 * Resolves when every migration of this version has been applied.
 *
 * @throws Failure `configuration` that names those that are missing, or as `migrate` does.
 */
export async function requireSchema(sql: Sql, folder?: string): Promise<void> {
  const migrations = migrationsIn(folder)
  const journal = (await hasJournal(sql)) ? await readJournal(sql) : []
  const names = missing(migrations, journal).map(({ name }) => name)
  if (names.length === 0) return
  throw new Failure(
    'configuration',
    `The database lacks ${names.join(', ')}; run \`sluice migrate\` against it first.`,
  )
}

/** Our own, read once: they belong to the version that runs, and every health check compares them. */
let packaged: Migration[] | undefined

function migrationsIn(folder: string | undefined): readonly Migration[] {
  if (folder !== undefined) return readMigrations(folder)
  packaged ??= readMigrations(join(sqlFolder(), 'migrations'))
  return packaged
}

function readMigrations(folder: string): Migration[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.sql'))
    .sort()
    .map((name) => {
      const text = readFileSync(join(folder, name), 'utf8')
      return { name, text, checksum: createHash('sha256').update(text).digest('hex') }
    })
}

interface Entry {
  name: string
  checksum: string
}

async function hasJournal(sql: Sql): Promise<boolean> {
  const [row] = await answerOf(
    sql,
    sql<[{ found: boolean }]>`SELECT to_regclass('schema_migration') IS NOT NULL AS found`,
  )
  return row.found
}

async function createJournal(sql: Sql): Promise<void> {
  const text = `
    SELECT pg_advisory_xact_lock(${MIGRATION_LOCK});
    CREATE TABLE IF NOT EXISTS schema_migration (
      name       text NOT NULL,
      checksum   text NOT NULL,
      applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
      CONSTRAINT schema_migration_pkey PRIMARY KEY (name)
    );
    COMMENT ON TABLE schema_migration IS 'Which files of sql/migrations were applied, and the SHA-256 of their text'`
  await answerOf(sql, sql.unsafe(text))
}

function readJournal(sql: Sql): Promise<readonly Entry[]> {
  return answerOf<readonly Entry[]>(
    sql,
    sql<Entry[]>`SELECT name, checksum FROM schema_migration ORDER BY name`,
  )
}

/** The migrations that the journal does not have, after a look whether journal and files fit together. */
function missing(migrations: readonly Migration[], journal: readonly Entry[]): Migration[] {
  const known = new Map(migrations.map((migration) => [migration.name, migration]))
  for (const { name, checksum } of journal) {
    const migration = known.get(name)
    if (migration === undefined) {
      throw new Failure(
        'configuration',
        `The database has ${name}, which this version of Sluice does not know: it was migrated by a newer one. ` +
          'Start that version.',
      )
    }
    if (migration.checksum !== checksum) {
      throw new Failure(
        'configuration',
        `sql/migrations/${name} was changed after it had been applied to this database. Restore the file; a change ` +
          'of the schema needs a migration of its own.',
      )
    }
  }
  const applied = new Set(journal.map(({ name }) => name))
  return migrations.filter(({ name }) => !applied.has(name))
}

/**
 * Lock, entry and migration are one simple query and so one transaction: a connection that breaks cannot leave half of
 * it behind. False when another process applied it while this one waited for the lock.
 */
async function apply(sql: Sql, { name, text, checksum }: Migration): Promise<boolean> {
  try {
    await sql.unsafe(`
      SET LOCAL statement_timeout = 0;
      SELECT pg_advisory_xact_lock(${MIGRATION_LOCK});
      INSERT INTO schema_migration (name, checksum) VALUES ('${name.replaceAll("'", "''")}', '${checksum}');
      ${text}`)
    return true
  } catch (thrown) {
    const failure = classifyPostgresError(thrown)
    const { table_name } = failure.cause as { table_name?: unknown }
    if (failure.code === UNIQUE_VIOLATION && table_name === 'schema_migration') return false
    throw new Failure(failure.kind, `The migration ${name} failed: ${failure.message}`, {
      ...(failure.code === undefined ? {} : { code: failure.code }),
      cause: failure,
    })
  }
}
