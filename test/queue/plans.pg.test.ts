import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { sqlFolder } from '../../src/postgres/statement.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { buffersOf, indexesOf, type PlanNode, rowsRead, tablesScanned } from './plan.ts'

const ROWS = 1_000_000
const BATCHES = 4_000
const ROWS_A_BATCH = 25
const CLAIMED = BATCHES * ROWS_A_BATCH
/** What a claim takes under the throughput profile. */
const CLAIM_ROWS = 200
/** Of the oldest pending rows: as many as a backlog of hours leaves behind when it has been worked off. */
const DEAD_ROWS = 500_000
/** An index page of 8 kB holds 400 entries of eight bytes and more: dead ones are stepped over within it. */
const PAGES_OF_DEAD = Math.ceil(DEAD_ROWS / 350)

/** A row is found by at most three descents of an index, each at most four pages deep; changed, it is written once. */
const PAGES_A_ROW = 20
const PAGES_A_STATEMENT = 100

let database: TestDatabase
let sql: Sql

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open({ connections: 1, statementTimeoutMs: 60_000 })
  // What a state has in its statistics and its dead rows is said here, and not by an autovacuum that may come or not.
  await sql.unsafe(`
    ALTER TABLE ingestion_queue SET (autovacuum_enabled = off, toast.autovacuum_enabled = off);
    ALTER TABLE ingestion_batch SET (autovacuum_enabled = off);
    CREATE FUNCTION batch(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
      RETURN lpad(to_hex(n), 32, '0')::uuid;
    INSERT INTO ingestion_batch (batch_id, lease_token, lease_owner, lease_until, claimed_at, status, next_attempt_at,
      rows, bytes)
    SELECT batch(n), batch(n), 'owner',
      now() + CASE n % 4 WHEN 2 THEN -n ELSE 3600 + n END * interval '1 s', now(),
      CASE WHEN n % 4 < 2 THEN 'failed' ELSE 'processing' END,
      now() + CASE n % 4 WHEN 0 THEN -n ELSE 3600 + n END * interval '1 s', ${ROWS_A_BATCH}, ${100 * ROWS_A_BATCH}
    FROM generate_series(1, ${BATCHES}) AS n`)
  await fillQueue(`batch((n - 1) / ${ROWS_A_BATCH} + 1)`, 1, CLAIMED)
})
afterAll(async () => {
  await closePool(sql, 1000)
  await database.drop()
})

/** Every fourth batch is held, from the third on; of the others each third is due, fails no more yet, was let go. */
const held = batchId(3)

interface Call {
  parameters: string
  /** Rows of the queue that are found or changed, at most. */
  rows: number
  /** Rows that the statement answers. */
  answers: number
  indexes: readonly string[]
}

const claims = ['ingestion_queue_pending', 'ingestion_queue_pkey']
const settles = ['ingestion_batch_pkey', 'ingestion_queue_batch']
const ids = `${held}, ${held}`

/** How each statement of the batch protocol is called, and what it may use for that. */
const calls: Record<string, Call> = {
  count_pending: {
    parameters: `${CLAIM_ROWS}, 0`,
    rows: CLAIM_ROWS,
    answers: 1,
    indexes: ['ingestion_queue_pending'],
  },
  claim_batch: {
    parameters: `${batchId(BATCHES + 1)}, ${held}, 'owner', 60, ${CLAIM_ROWS}, 1000000, 1000000, true, 1000000, 0`,
    rows: CLAIM_ROWS,
    answers: CLAIM_ROWS,
    indexes: claims,
  },
  has_due_batch: {
    parameters: '',
    rows: 0,
    answers: 1,
    indexes: ['ingestion_batch_due', 'ingestion_batch_expired'],
  },
  take_over_batch: {
    parameters: `${held}, 'owner', 60, 1000000, 1000, 1000000`,
    rows: ROWS_A_BATCH,
    answers: ROWS_A_BATCH,
    indexes: ['ingestion_batch_due', 'ingestion_batch_expired', ...settles],
  },
  renew_leases: {
    parameters: `ARRAY[${held}]::uuid[], ARRAY[${held}]::uuid[], 60`,
    rows: 0,
    answers: 1,
    // Where nothing is known of the tables, it reads both.
    indexes: ['ingestion_batch_pkey', 'ingestion_batch_expired'],
  },
  complete_batch: {
    parameters: `${ids}, ${ROWS_A_BATCH}, '[]'`,
    rows: ROWS_A_BATCH,
    answers: 1,
    indexes: settles,
  },
  fail_batch: {
    parameters: `${ids}, 0, 1, 1000, 'error'`,
    rows: 0,
    answers: 1,
    indexes: ['ingestion_batch_pkey'],
  },
  split_batch: {
    parameters: `${ids}, ${ROWS_A_BATCH}, ${batchId(BATCHES + 1)}, ${batchId(BATCHES + 2)}, '{}', 'error'`,
    rows: ROWS_A_BATCH,
    answers: 1,
    indexes: [...settles, 'ingestion_queue_pkey'],
  },
  release_batch: {
    parameters: `${ids}, ${ROWS_A_BATCH}, '{}'`,
    rows: ROWS_A_BATCH,
    answers: 1,
    indexes: settles,
  },
  bury_batch: {
    parameters: `${ids}, ${ROWS_A_BATCH}, '{}', 'reason', 1, 'error'`,
    rows: ROWS_A_BATCH,
    answers: 1,
    indexes: settles,
  },
  absolve_batch: { parameters: held, rows: 0, answers: 0, indexes: ['ingestion_batch_pkey'] },
  find_settled: { parameters: held, rows: 0, answers: 1, indexes: [] },
  may_sweep: { parameters: `${held}, 'key'`, rows: 1, answers: 1, indexes: settles },
  read_payload_piece: { parameters: '1, 1, 1000000', rows: 1, answers: 1, indexes: ['ingestion_queue_pkey'] },
  count_backlog: {
    parameters: `${CLAIM_ROWS}, 0`,
    rows: CLAIM_ROWS,
    answers: 1,
    indexes: ['ingestion_batch_due', 'ingestion_queue_pending'],
  },
}

describe('with statistics of a time when every row was claimed', () => {
  beforeAll(async () => {
    await sql.unsafe('ANALYZE ingestion_queue, ingestion_batch')
    await fillQueue('NULL::uuid', CLAIMED + 1, ROWS)
  })
  everyStatement()
})

describe('with tables that were never analysed', () => {
  beforeAll(async () => {
    for (const { name } of await sql.unsafe<{ name: string }[]>(`
      SELECT relname AS name FROM pg_class
      WHERE relkind IN ('r', 'i') AND relname ~ '^ingestion_' AND relnamespace = 'public'::regnamespace`)) {
      await sql.unsafe(`SELECT pg_clear_relation_stats('public', '${name}')`)
    }
    await sql.unsafe(`
      SELECT pg_clear_attribute_stats('public', relname, attname, false)
      FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
      WHERE relname IN ('ingestion_queue', 'ingestion_batch') AND attnum > 0 AND NOT attisdropped`)
  })
  everyStatement()
})

describe('with statistics of what is there', () => {
  beforeAll(async () => {
    await sql.unsafe('ANALYZE ingestion_queue, ingestion_batch')
  })
  everyStatement()
})

describe('behind half a million dead rows', () => {
  beforeAll(async () => {
    await sql.unsafe(`
      DELETE FROM ingestion_queue WHERE id BETWEEN ${CLAIMED + 1} AND ${CLAIMED + DEAD_ROWS};
      DELETE FROM ingestion_batch WHERE batch_id IN (SELECT batch(n) FROM generate_series(40, ${BATCHES}, 4) AS n)`)
    // Whoever comes first finds every dead row in the table, and marks them in the index, if no other session of this database,
    // an autovacuum perhaps, may still see them.
    const lookers = ['count_pending', 'has_due_batch', 'take_over_batch']
    await vi.waitFor(
      async () => {
        for (const name of lookers) await run(name, 'force_generic_plan')
        for (const name of lookers) {
          const pages = buffersOf(await run(name, 'force_generic_plan'))
          expect(pages, name).toBeLessThanOrEqual(PAGES_OF_DEAD)
        }
      },
      { timeout: 20_000, interval: 100 },
    )
  })
  everyStatement({ pagesOfDead: PAGES_OF_DEAD })

  describe('that a vacuum took away', () => {
    beforeAll(async () => {
      await sql.unsafe('VACUUM ingestion_queue, ingestion_batch')
    })
    everyStatement()
  })
})

/**
 * A statement reads what it is asked for, by the indexes it was made for, and nothing that depends on how many rows
 * there are.
 */
function everyStatement({ pagesOfDead = 0 } = {}): void {
  describe.each(['force_generic_plan', 'force_custom_plan'])('%s', (mode) => {
    test.each(Object.entries(calls))('%s', async (name, { rows, answers, indexes }) => {
      const plan = await run(name, mode)
      const text = JSON.stringify(plan, null, 1)
      expect(tablesScanned(plan), text).toEqual([])
      expect(
        indexesOf(plan).filter((index) => !indexes.includes(index)),
        text,
      ).toEqual([])
      expect(plan['Actual Rows'], text).toBe(answers)
      expect(rowsRead(plan, 'ingestion_queue'), text).toBeLessThanOrEqual(rows)
      expect(buffersOf(plan), text).toBeLessThanOrEqual(PAGES_A_STATEMENT + rows * PAGES_A_ROW + pagesOfDead)
    })
  })
}

/** The plan of the statement as it was carried out, with what it read; then everything is as before. */
async function run(name: string, mode: string): Promise<PlanNode> {
  const text = readFileSync(join(sqlFolder(), 'queue', `${name}.sql`), 'utf8')
  const { parameters = '' } = calls[name] ?? {}
  await sql.unsafe(`SET plan_cache_mode = ${mode}; PREPARE ${name} AS ${text}`)
  const results = await sql.unsafe(`
    BEGIN;
    EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE ${name} ${parameters === '' ? '' : `(${parameters})`};
    ROLLBACK`)
  await sql.unsafe(`DEALLOCATE ${name}`)
  const plans = results.flat().flatMap((row): { Plan: PlanNode }[] => row?.['QUERY PLAN'] ?? [])
  if (plans[0] === undefined) throw new Error(`no plan of ${name}`)
  return plans[0].Plan
}

async function fillQueue(batch: string, first: number, last: number): Promise<void> {
  await sql.unsafe(`
    INSERT INTO ingestion_queue
      (batch_id, items, bytes, unpacked_bytes, signal, encoding, tenant, request_id, summary, payload)
    SELECT ${batch}, 1, 100, 100, 1, 0, 'default', 'request', '', decode(repeat('5c', 100), 'hex')
    FROM generate_series(${first}::bigint, ${last}) AS n`)
}

function batchId(number: number): string {
  return `'${'0'.repeat(8)}-0000-0000-0000-${number.toString(16).padStart(12, '0')}'`
}
