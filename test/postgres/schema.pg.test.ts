import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { schemaText } from '../../scripts/schema-text.ts'
import { closePool } from '../../src/postgres/pool.ts'
import { sqlFolder } from '../../src/postgres/statement.ts'
import { cloneDatabase, emptyDatabase } from '../support/postgres.ts'

const snapshot = readFileSync(join(sqlFolder(), 'schema.sql'), 'utf8')

test('sql/schema.sql is what the migrations make; `make schema` writes it', async () => {
  const database = await cloneDatabase()
  const sql = database.open()
  expect(await schemaText(sql)).toBe(snapshot)
  await closePool(sql, 1_000)
  await database.drop()
})

test('sql/schema.sql makes the schema that it describes', async () => {
  const database = await emptyDatabase()
  const sql = database.open()
  await sql.unsafe(snapshot)
  expect(await schemaText(sql)).toBe(snapshot)
  await closePool(sql, 1_000)
  await database.drop()
})

test('nothing in src uses transactions of several statements, which postgres.js can run on two connections', () => {
  const folder = join(sqlFolder(), '..', 'src')
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.ts'),
  )
  const using = files.filter((name) =>
    /\bsql\.(begin|reserve)\(/.test(readFileSync(join(folder, name), 'utf8')),
  )
  expect(using).toEqual([])
})
