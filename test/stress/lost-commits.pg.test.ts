import { afterEach, beforeEach, expect, test } from 'vitest'
import { noTls } from '../../src/postgres/location.ts'
import { closePool, openPool, type Sql } from '../../src/postgres/pool.ts'
import { PostgresAnswers } from '../../stress/faults/postgres-answers.ts'
import { FaultProxy } from '../../stress/faults/proxy.ts'
import { seededRandom } from '../../stress/seeded-random.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'

let database: TestDatabase
let proxy: FaultProxy
let past: Sql
let through: Sql

beforeEach(async () => {
  database = await cloneDatabase()
  past = database.open()
  await past`CREATE TABLE kept (number int PRIMARY KEY, text text)`
  const { host, port } = database.location
  proxy = await FaultProxy.start({
    target: { path: `${host}/.s.PGSQL.${port}` },
    random: seededRandom(1),
    watch: () => new PostgresAnswers(),
  })
  through = openPool({
    url: { ...database.location, host: '127.0.0.1', port: proxy.port, tls: { ...noTls, mode: 'prefer' } },
    name: 'through the proxy',
    connections: 1,
    statementTimeoutMs: 10_000,
  })
})

afterEach(async () => {
  await closePool(through, 1_000)
  await proxy.stop()
  await closePool(past, 1_000)
  await database.drop()
})

const rows = async () => (await past`SELECT number FROM kept ORDER BY number`).map(({ number }) => number)

test('a statement whose answer is lost is committed, and its client is told that the connection broke', async () => {
  await through`INSERT INTO kept VALUES (1)`
  const lost = proxy.loseAnswers({ wanted: (text) => text.includes('INSERT INTO kept'), count: 1 })
  await through`SELECT * FROM kept`
  await expect(through`INSERT INTO kept VALUES (2) RETURNING number`).rejects.toMatchObject({
    code: 'ECONNRESET',
  })
  await lost.done
  expect(await rows()).toEqual([1, 2])
  await through`INSERT INTO kept VALUES (3)`
  expect(await rows()).toEqual([1, 2, 3])
})

test('a COPY whose answer is lost is committed', async () => {
  const lost = proxy.loseAnswers({ wanted: (text) => text.startsWith('COPY kept'), count: 1 })
  const copy = await through.unsafe('COPY kept (number, text) FROM STDIN').writable()
  copy.on('error', () => undefined)
  copy.end(`7\t${'x'.repeat(300_000)}\n`)
  await lost.done
  expect(await rows()).toEqual([7])
})

test('a statement that fails has no answer to be lost, and rows of any size come through', async () => {
  const lost = proxy.loseAnswers({ wanted: (text) => text.includes('INTO kept'), count: 1 })
  await expect(through`INSERT INTO kept VALUES (1), (1)`).rejects.toMatchObject({ code: '23505' })
  const [row] = await through`SELECT repeat('y', 400000) AS text`
  expect(row?.text.length).toBe(400_000)
  expect(lost.count).toBe(0)
  expect(await rows()).toEqual([])
})
