import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { countObjects, findCatalogued, pageObjects } from '../../src/sink/catalog-pages.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'

const count = 5_000
let database: TestDatabase
let sql: Sql

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open({ connections: 1 })
  // Ten at each moment, so that pages end in the middle of one.
  await sql.unsafe(
    `INSERT INTO stored_object (object_id, batch_id, items, bytes, requests, signal, encoding, tenant, bucket, key,
      checksum, services, queue_ids, offsets, stored_at)
     SELECT gen_random_uuid(), gen_random_uuid(), 1, 2, 1, 1, 1, 'default', 'b', 'key "' || number || '",', 'c', '{}',
      '{1}', '{0}', timestamptz '2026-07-31T23:59:59Z' + number / 10 * interval '10 ms'
     FROM generate_series(1, $1::int) AS number`,
    [count],
  )
  await sql`ANALYZE stored_object`
})
afterAll(async () => {
  await closePool(sql, 1000)
  await database.drop()
})

async function keysIn(since: Date | undefined, before: Date): Promise<string[]> {
  const keys: string[] = []
  for await (const page of pageObjects(sql, { since, before })) keys.push(...page.map(({ key }) => key))
  return keys
}

test('every row of the catalog comes once, also where many were stored at the same moment', async () => {
  const before = new Date('2026-09-01T00:00:00Z')
  const keys = await keysIn(undefined, before)
  expect(keys).toHaveLength(count)
  expect(new Set(keys).size).toBe(count)
  expect(await countObjects(sql, { since: undefined, before })).toEqual({ objects: count, bytes: 2 * count })
})

test('a span begins with what was stored at its start and ends before its end', async () => {
  const span = { since: new Date('2026-08-01T00:00:00Z'), before: new Date('2026-08-01T00:00:01Z') }
  const keys = await keysIn(span.since, span.before)
  expect(keys).toHaveLength(1_000)
  expect(await countObjects(sql, span)).toEqual({ objects: 1_000, bytes: 2_000 })
})

test('a page is read from the index where the last one ended, not from a sort of all the rest', async () => {
  const text = readFileSync(new URL('../../sql/sink/page_objects.sql', import.meta.url), 'utf8')
  await sql.unsafe(`SET plan_cache_mode = force_generic_plan; PREPARE page AS ${text}`)
  const plan = await sql.unsafe<{ 'QUERY PLAN': string }[]>(
    `EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, BUFFERS OFF)
     EXECUTE page('2026-07-31T23:59:59Z', '00000000-0000-0000-0000-000000000000', '2026-09-01T00:00:00Z', 200)`,
  )
  const lines = plan.map((line) => line['QUERY PLAN'])
  const scan = lines.find((line) => line.includes('Index Scan using stored_object_stored_at'))
  expect(Number(/rows=([\d.]+)/.exec(scan ?? '')?.[1])).toBeLessThan(400)
})

test('keys are found whatever characters they have', async () => {
  const keys = ['key "1",', 'key "2",', "it's", '{}', 'key "0",']
  expect(await findCatalogued(sql, keys)).toEqual(new Set(keys.slice(0, 2)))
  expect(await findCatalogued(sql, [])).toEqual(new Set())
})
