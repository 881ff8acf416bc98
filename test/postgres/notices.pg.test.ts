import { afterAll, beforeAll, expect, test } from 'vitest'
import { closePool, type Notice } from '../../src/postgres/pool.ts'
import { row, stagerOn } from '../queue/rows.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await cloneDatabase()
  const sql = database.open({ connections: 1 })
  // Any version that is not the server's own, as after an upgrade of the operating system.
  await sql`UPDATE pg_database SET datcollversion = '0' WHERE datname = current_database()`
  await closePool(sql, 1_000)
})
afterAll(() => database.drop())

test('a database whose sessions open with a warning is no commit that gave one: its rows are staged', async () => {
  const stager = stagerOn(database)
  await stager.start()
  await stager.append(row('one'))
  await stager.append(row('two'))
  await stager.stop()
  const sql = database.open({ connections: 1 })
  expect(await sql`SELECT payload FROM ingestion_queue ORDER BY id`).toEqual([
    { payload: Buffer.from('one') },
    { payload: Buffer.from('two') },
  ])
  await closePool(sql, 1_000)
})

test('a warning of a statement is heard, and none of what its session said before it was ready', async () => {
  const notices: Notice[] = []
  const sql = database.open({ connections: 1, onNotice: (notice) => notices.push(notice) })
  await sql.unsafe(`DO $$ BEGIN RAISE WARNING 'of a statement'; END $$`)
  await closePool(sql, 1_000)
  expect(notices.map(({ message }) => message)).toEqual(['of a statement'])
})
