import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openEmbedded } from '../src/postgres/embedded.ts'
import { migrate } from '../src/postgres/migrate.ts'
import { closePool, openPool, type Sql } from '../src/postgres/pool.ts'
import { sqlFolder } from '../src/postgres/statement.ts'
import { schemaText } from './schema-text.ts'

/**
 * Writes `sql/schema.sql`, the schema as it is after all migrations, read off the catalogs of a database of its own.
 * With `--check` it writes nothing and fails when the file is not up to date.
 */
const path = join(sqlFolder(), 'schema.sql')
const current = await withMigratedDatabase(schemaText)
if (!process.argv.includes('--check')) {
  writeFileSync(path, current)
  console.log(`${path} is written`)
} else if (readOrEmpty(path) !== current) {
  console.error('sql/schema.sql is not what the migrations make; run `make schema` and look at what changed')
  process.exitCode = 1
}

function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    // Not written yet.
    return ''
  }
}

async function withMigratedDatabase(use: (sql: Sql) => Promise<string>): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-schema-'))
  // As root, the server runs as another user, who must get through.
  chmodSync(folder, 0o711)
  const dataDir = join(folder, 'data')
  const embedded = await openEmbedded({
    dataDir,
    log: (level, message) => console.error(`${level}: ${message}`),
    onOwnershipLost: (failure) => console.error(failure.message),
  })
  const sql = openPool({ url: embedded.location, name: 'schema', connections: 1, statementTimeoutMs: 60_000 })
  try {
    await migrate(sql)
    return await use(sql)
  } finally {
    await closePool(sql, 1_000)
    await embedded.stop()
    rmSync(folder, { recursive: true, force: true })
  }
}
