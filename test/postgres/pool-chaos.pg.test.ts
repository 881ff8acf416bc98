import { afterAll, beforeAll, expect, test } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { classifyPostgresError } from '../../src/postgres/sqlstate.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await cloneDatabase()
})
afterAll(() => database.drop())

const MS = Number(process.env.CHAOS_MS ?? 4000)

test('killed backends give classified outages, never a hang or a crash, and the pool goes on', async () => {
  const victim = database.open({ name: 'victim', connections: 3 })
  const killer = database.open({ name: 'killer', connections: 1 })
  const until = performance.now() + MS
  const kinds = new Map<string, number>()
  let done = 0
  let slowest = 0
  const count = (key: string) => kinds.set(key, (kinds.get(key) ?? 0) + 1)
  async function client(n: number): Promise<void> {
    while (performance.now() < until) {
      const started = performance.now()
      try {
        if (n % 3 === 0) await victim`SELECT ${n}::int AS n, pg_sleep(0.002)`
        else if (n % 3 === 1) await victim`SELECT ${n}::int AS n`
        else await victim.unsafe('SELECT 1; SELECT 2')
        done++
      } catch (thrown) {
        const f = classifyPostgresError(thrown)
        count(`${f.kind} ${f.code}`)
        if (f.kind !== 'outage') count(f.message)
      }
      slowest = Math.max(slowest, performance.now() - started)
    }
  }
  async function kill(): Promise<void> {
    while (performance.now() < until) {
      await killer`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim' AND random() < 0.7`
      await killer`SELECT pg_sleep(0.003)`
    }
  }
  const clients = Array.from({ length: 12 }, (_, n) => client(n))
  await Promise.all([kill(), ...clients])
  console.log(done, slowest, Object.fromEntries(kinds))
  expect(await victim`SELECT 1 AS one`).toEqual([{ one: 1 }])
  await closePool(victim, 1000)
  await closePool(killer, 1000)
}, 100_000)
