import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { sqlFolder } from '../../src/postgres/statement.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'

const ROWS = 200_000
let database: TestDatabase
let sql: Sql

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open({ connections: 1, statementTimeoutMs: 60_000 })
  await sql.unsafe(`
    INSERT INTO ingestion_queue (items, bytes, unpacked_bytes, signal, encoding, tenant, request_id, summary, payload)
    SELECT 1, 1, 1, 1, 0, 'default', 'r', '', '' FROM generate_series(1, ${ROWS});
    INSERT INTO ingestion_batch (batch_id, lease_token, lease_owner, lease_until, claimed_at, status, next_attempt_at,
      rows, bytes)
    SELECT gen_random_uuid(), gen_random_uuid(), 'o', now() + (n * interval '1 s'), now(),
      CASE WHEN n % 2 = 0 THEN 'failed' ELSE 'processing' END, now() + (n * interval '1 s'), 25, 25
    FROM generate_series(1, 20000) AS n;
    UPDATE ingestion_queue SET batch_id = (SELECT batch_id FROM ingestion_batch LIMIT 1) WHERE id <= 25`)
  await sql.unsafe('ANALYZE')
})
afterAll(async () => {
  await closePool(sql, 1000)
  await database.drop()
})

const uuid = `'01a210cc-5850-7602-b479-946708daf8e1'`
/** How each statement of the batch protocol is called. */
const calls: Record<string, string> = {
  count_pending: '25',
  claim_batch: `${uuid}, ${uuid}, 'owner', 60, 25, 1000000, 1000000, true, 1000000`,
  has_due_batch: '',
  take_over_batch: `${uuid}, 'owner', 60, 1000000, 1000, 1000000`,
  renew_leases: `ARRAY[${uuid}]::uuid[], ARRAY[${uuid}]::uuid[], 60`,
  complete_batch: `${uuid}, ${uuid}, 25, '[]', '{}', '{}', '{}', '{}'`,
  fail_batch: `${uuid}, ${uuid}, 0, 1, 1000, 'error'`,
  split_batch: `${uuid}, ${uuid}, 25, ${uuid}, ${uuid}, '{}', 'error'`,
  release_batch: `${uuid}, ${uuid}, 25, '{}'`,
  bury_batch: `${uuid}, ${uuid}, 1, '{}', 'reason', 1, 'error'`,
  absolve_batch: uuid,
  find_settled: uuid,
  read_payload_piece: '1, 1, 1000000',
}

for (const mode of ['force_generic_plan', 'force_custom_plan']) {
  for (const [name, parameters] of Object.entries(calls)) {
    test(`${name} never reads a whole table under ${mode}`, async () => {
      const text = readFileSync(join(sqlFolder(), 'queue', `${name}.sql`), 'utf8')
      await sql.unsafe(`SET plan_cache_mode = ${mode}`)
      await sql.unsafe(`PREPARE ${name} AS ${text}`)
      const plan = await sql.unsafe(`EXPLAIN EXECUTE ${name} ${parameters === '' ? '' : `(${parameters})`}`)
      await sql.unsafe(`DEALLOCATE ${name}`)
      const lines = plan.map((line) => String(Object.values(line)[0]))
      // An empty catalog is read from its one page; the queue and its batches must be reached by an index.
      const scans = lines.filter((line) => /Seq Scan on ingestion_(queue|batch)/.test(line))
      expect(scans, lines.join('\n')).toEqual([])
    })
  }
}

test('counting the backlog ends at its limit', async () => {
  const text = readFileSync(join(sqlFolder(), 'queue/count_backlog.sql'), 'utf8')
  await sql.unsafe('SET plan_cache_mode = auto')
  await sql.unsafe(`PREPARE count_backlog AS ${text}`)
  const [plan] = await sql.unsafe(`EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE count_backlog (1001)`)
  await sql.unsafe('DEALLOCATE count_backlog')
  interface Node {
    'Relation Name'?: string
    'Actual Rows': number
    Plans?: Node[]
  }
  const [{ Plan }] = Object.values(plan ?? {})[0] as [{ Plan: Node }]
  const all = (node: Node): Node[] => [node, ...(node.Plans ?? []).flatMap(all)]
  const read = all(Plan).filter((node) => node['Relation Name'] === 'ingestion_queue')
  expect(read.map((node) => node['Actual Rows'])).toEqual([1001])
})
