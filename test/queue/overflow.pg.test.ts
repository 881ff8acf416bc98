import { afterAll, beforeAll, expect, test } from 'vitest'
import { systemClock } from '../../src/foundation/clock.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { countBacklog } from '../../src/queue/count-backlog.ts'
import { Overflow } from '../../src/queue/overflow.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { row, stagerOn } from './rows.ts'

const LIMIT = 400
const PROCESSES = 3
/** What a process may have on its way to its commit when it counts: two lanes, and here one sender each time. */
const IN_FLIGHT_MAX = 40
let database: TestDatabase
let sql: Sql

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open()
})
afterAll(async () => {
  await closePool(sql, 1000)
  await database.drop()
})

/** One ingress process, as far as the queue is concerned: its own stager, its own count. */
async function ingress() {
  const pool = database.open({ connections: 1 })
  const stager = stagerOn(database)
  let headroomMax = 0
  const overflow = new Overflow({
    policy: 'reject',
    sampleRate: 0,
    rowsMax: LIMIT,
    bytesMax: 1_000_000,
    count: (limit) => countBacklog(pool, limit),
    onCounted: ({ rows }) => {
      headroomMax = Math.max(headroomMax, LIMIT - rows)
    },
    clock: systemClock,
    random: () => 0,
  })
  await stager.start()
  await overflow.start()
  return {
    headroom: () => headroomMax,
    /** Offers rows on several connections until the queue is full for all of them. */
    async fill(): Promise<number> {
      let staged = 0
      const lane = async () => {
        for (let refused = 0; refused < 3; ) {
          if (overflow.decide(1).outcome === 'stage') {
            await stager.append(row('x'))
            overflow.settled(1, true)
            staged++
          } else {
            refused++
            await systemClock.sleep(60)
          }
        }
      }
      await Promise.all(Array.from({ length: IN_FLIGHT_MAX }, lane))
      return staged
    },
    async stop() {
      await overflow.stop()
      await stager.stop()
      await closePool(pool, 1000)
    },
  }
}

test('one process fills the queue to its limit and not a row beyond', async () => {
  await sql`TRUNCATE ingestion_queue`
  const one = await ingress()
  expect(await one.fill()).toBe(LIMIT)
  await one.stop()
})

test('several processes pass the limit by at most (processes − 1) times the headroom read last', async () => {
  await sql`TRUNCATE ingestion_queue`
  const all = await Promise.all(Array.from({ length: PROCESSES }, ingress))
  const staged = (await Promise.all(all.map((one) => one.fill()))).reduce((sum, rows) => sum + rows, 0)
  const [found] = await sql`SELECT count(*)::int AS rows FROM ingestion_queue`
  expect(found).toEqual({ rows: staged })
  const headroom = Math.max(...all.map((one) => one.headroom()))
  expect(staged).toBeGreaterThanOrEqual(LIMIT)
  expect(staged).toBeLessThanOrEqual(LIMIT + (PROCESSES - 1) * headroom)
  // Once everybody has counted, nobody takes another row.
  expect(await Promise.all(all.map((one) => one.fill()))).toEqual(all.map(() => 0))
  await Promise.all(all.map((one) => one.stop()))
})
