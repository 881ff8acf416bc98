import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { post, type RunningSluice, spanRequest, startSluice } from '../system/sluice.ts'
import { lossesIn, outcomes, report, sendThroughTrouble } from './fleet.ts'
import { readStored } from './stored.ts'

const OVERLOAD_MS = 20_000
/** From the beginning of the overload to the first export. */
const BEFORE_MS = 1_500
const BACKLOG = 100

let database: TestDatabase
let sql: Sql
let dataDir: string
let ingress: RunningSluice
let worker: RunningSluice

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open()
  dataDir = mkdtempSync(join(tmpdir(), 'sluice-clients-'))
  chmodSync(dataDir, 0o755)
  const settings = {
    DATABASE_URL: database.databaseUrl,
    DATA_DIR: dataDir,
    STAGING_MAX_BACKLOG: String(BACKLOG),
  }
  ingress = await startSluice(settings, ['--role', 'ingress'])
  worker = await startSluice(settings, ['--role', 'worker'])
})
afterAll(async () => {
  for (const running of [ingress, worker]) {
    expect(await running.process.terminate()).toBe(0)
    expect(running.process.strayLines).toEqual([])
  }
  await closePool(sql, 1000)
  await database.drop()
  rmSync(dataDir, { recursive: true, force: true })
})

test('the queue is full for 20 s: every client that repeats what is answered 429 brings every item in', {
  timeout: 120_000,
}, async () => {
  process.kill(worker.process.pid, 'SIGSTOP')
  const fill = () => post(ingress.url, spanRequest('before', { service: 'before' }))
  await expect.poll(fill, { interval: 0, timeout: 20_000 }).toBe(429)
  // Repeats come every four seconds, five times: what is begun with the overload itself would end with it.
  await wait(BEFORE_MS)
  const trouble = async () => {
    await wait(OVERLOAD_MS - BEFORE_MS)
    process.kill(worker.process.pid, 'SIGCONT')
  }
  const options = { to: ingress, name: 'overload', exports: 23, timeoutSeconds: 60 }
  const read = () => readStored(sql, dataDir)
  const { table, senders } = await sendThroughTrouble(options, { read, trouble })
  const metrics = await ingress.process.metrics()
  console.log(report('the queue full for 20 s', table, metrics))
  const givenUp = senders.find(({ service }) => service === 'overload: js grpc')?.errors ?? []
  expect(lossesIn(table)).toEqual({ 'overload: js grpc traces': givenUp.length })
  expect(givenUp.length).toBeGreaterThan(10)
  expect(new Set(givenUp)).toEqual(new Set(['8 RESOURCE_EXHAUSTED: the queue is full']))
  expect(Object.values(table).map(({ repeated }) => repeated)).toEqual(Object.values(table).map(() => 0))
  expect(outcomes(metrics)).toEqual({ accepted: expect.any(Number), queue_full: expect.any(Number) })
})
