import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { copyIn } from '../../src/postgres/copy.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { copyTraceEntriesText, encodeTraceEntries, type ObjectTraces } from '../../src/queue/trace-entries.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'

let database: TestDatabase
let sql: Sql

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open({ connections: 1 })
  await sql`CREATE TABLE every_day PARTITION OF trace_index DEFAULT`
})
afterAll(async () => {
  await closePool(sql, 1000)
  await database.drop()
})

const hashes = fc
  .array(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), { maxLength: 20 })
  .map((some) => BigInt64Array.from(some))
const objects: fc.Arbitrary<ObjectTraces[]> = fc.array(
  fc.record({ objectId: fc.uuid(), traceHashes: fc.array(hashes, { maxLength: 5 }) }),
  { maxLength: 4 },
)

async function copied(traces: readonly ObjectTraces[]): Promise<string[]> {
  await sql`TRUNCATE trace_index`
  await copyIn(sql, copyTraceEntriesText, encodeTraceEntries(traces))
  const rows = await sql`SELECT trace_hash, object_id, request_no FROM trace_index`
  return rows.map((row) => `${row.trace_hash} ${row.object_id} ${row.request_no}`)
}

function expected(traces: readonly ObjectTraces[]): string[] {
  return traces.flatMap(({ objectId, traceHashes }) =>
    traceHashes.flatMap((some, requestNo) => [...some].map((hash) => `${hash} ${objectId} ${requestNo}`)),
  )
}

test('PostgreSQL reads every entry as it was meant', async () => {
  await fc.assert(
    fc.asyncProperty(objects, async (traces) => {
      expect((await copied(traces)).toSorted()).toEqual(expected(traces).toSorted())
    }),
  )
})

test('tens of thousands of entries come in pieces of at most 240 kB', async () => {
  const objectId = '019ab5e0-0000-7000-8000-000000000000'
  for (const lengths of [[6_000], [6_001], [5_999, 2, 5_999], [10_000, 10_000, 0, 7]]) {
    const traceHashes = lengths.map((length, place) =>
      BigInt64Array.from({ length }, (_, hash) => BigInt(hash) * 2n ** 40n - BigInt(place)),
    )
    const traces = [{ objectId, traceHashes }]
    for (const piece of encodeTraceEntries(traces)) expect(piece.length).toBeLessThanOrEqual(240_000)
    expect((await copied(traces)).toSorted()).toEqual(expected(traces).toSorted())
  }
})
