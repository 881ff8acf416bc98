import { expect, test } from 'vitest'
import { closePool } from '../../src/postgres/pool.ts'
import { cloneDatabase } from '../support/postgres.ts'

test('a cloned database has the schema and takes rows', async () => {
  const database = await cloneDatabase()
  const sql = database.open()
  expect(await sql`SELECT count(*) FROM ingestion_queue`).toEqual([{ count: 0n }])
  await closePool(sql, 1000)
  await database.drop()
})
