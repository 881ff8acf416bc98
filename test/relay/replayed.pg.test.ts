import { afterAll, beforeAll, expect, test } from 'vitest'
import { systemClock } from '../../src/foundation/clock.ts'
import { Failure } from '../../src/foundation/failure.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { discardDeadLetters, replayDeadLetters } from '../../src/queue/dead-letters.ts'
import { relayQueue } from '../../src/queue/relay-queue.ts'
import { row, stageAll } from '../queue/rows.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { FaultyStore, startRelay } from './fixture.ts'

let database: TestDatabase
let sql: Sql
const everything = { after: 0n, last: 2n ** 63n - 1n, rowsMax: 1000, bytesMax: 1e9 }

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open({ connections: 4 })
})
afterAll(async () => {
  await closePool(sql, 1000)
  await database.drop()
})

test.each([
  ['replayed', replayDeadLetters, 1],
  ['discarded', discardDeadLetters, 0],
] as const)(
  'a worker whose burial was answered by nobody finds its batch %s: it touches nothing, and what is stored is stored once',
  async (_, move, stored) => {
    await sql`TRUNCATE ingestion_queue, ingestion_batch, dead_letter, stored_object, trace_index, abandoned_batch`
    await stageAll(database, [row('poison')])
    const store = new FaultyStore()
    let isHealed = false
    store.beforePut = () => {
      if (!isHealed) throw new Failure('data', 'the store refuses it')
    }
    const queue = relayQueue({
      claims: sql,
      settles: sql,
      owner: 'test',
      leaseSeconds: 60,
      clock: systemClock,
    })
    let burials = 0
    const { events, stop } = await startRelay(database, store, {
      attemptsMax: 1,
      queue: {
        ...queue,
        buryBatch: async (...burial) => {
          const settled = await queue.buryBatch(...burial)
          if (++burials > 1) return settled
          // Somebody is quick, while the answer is on its way and lost.
          isHealed = true
          expect(await move(sql, {}, everything)).toMatchObject({ rows: 1 })
          throw new Failure('outage', 'the answer is lost')
        },
      },
    })
    await expect.poll(() => events.map(({ event }) => event)).toContain('batch_lost')
    const left = async () => {
      const [found] = await sql`
      SELECT (SELECT count(*)::int FROM ingestion_queue) AS queue,
        (SELECT count(*)::int FROM ingestion_batch) AS batches,
        (SELECT count(*)::int FROM dead_letter) AS dead,
        (SELECT coalesce(sum(requests), 0)::int FROM stored_object) AS stored`
      return found
    }
    await expect.poll(left).toEqual({ queue: 0, batches: 0, dead: 0, stored })
    await stop()
    expect(burials).toBe(2)
    const keys = await sql<{ key: string }[]>`SELECT key FROM stored_object`
    expect([...store.objects.keys()]).toEqual(keys.map(({ key }) => key))
  },
)
