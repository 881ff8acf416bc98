import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { type RunningSluice, startSluice } from '../system/sluice.ts'
import { fates, lossesIn, outcomes, report, sdkSenders, sendThroughTrouble } from './fleet.ts'
import { OwnDatabase } from './own-database.ts'
import { readStored } from './stored.ts'

const LONG_MS = 20_000
const SHORT_MS = 8_000
/** From the first export to the beginning of an outage. */
const BEFORE_MS = 1_500

let database: OwnDatabase
let sql: Sql
let dataDir: string
let sluice: RunningSluice

beforeAll(async () => {
  database = await OwnDatabase.start()
  sql = database.open()
  dataDir = mkdtempSync(join(tmpdir(), 'sluice-clients-'))
  chmodSync(dataDir, 0o755)
  sluice = await startSluice({ DATABASE_URL: database.url, DATA_DIR: dataDir })
})
afterAll(async () => {
  expect(await sluice.process.terminate()).toBe(0)
  expect(sluice.process.strayLines).toEqual([])
  await closePool(sql, 1000)
  await database.remove()
  rmSync(dataDir, { recursive: true, force: true })
})

const read = () => readStored(sql, dataDir)

/** What was stored twice: a request whose commit was given up half way is repeated by its sender, and may be there. */
async function expectNoMoreRepeatedThanUnknown(table: ReturnType<typeof fates>): Promise<void> {
  const repeated = Object.values(table).reduce((total, fate) => total + fate.repeated, 0)
  const unknown = (await sluice.process.metrics()).get('sluice_staging_unknown_rows_total') ?? 0
  expect(repeated).toBeLessThanOrEqual(unknown)
}

test('PostgreSQL is away for 20 s: every client that repeats what is answered 503 brings every item in', {
  timeout: 120_000,
}, async () => {
  const options = { to: sluice, name: 'long', exports: 23, timeoutSeconds: 60 }
  const trouble = async () => {
    await wait(BEFORE_MS)
    await database.awayFor(LONG_MS)
  }
  const { table, senders } = await sendThroughTrouble(options, { read, trouble })
  const metrics = await sluice.process.metrics()
  console.log(report('PostgreSQL away for 20 s', table, metrics))
  // The exporter for OTLP/gRPC of the SDK for JavaScript repeats nothing: what it is refused it throws away.
  const givenUp = senders.find(({ service }) => service === 'long: js grpc')?.errors ?? []
  expect(lossesIn(table)).toEqual({ 'long: js grpc traces': givenUp.length })
  expect(givenUp.length).toBeGreaterThan(10)
  expect(new Set(givenUp)).toEqual(
    new Set(['14 UNAVAILABLE: the request could not be staged; send it again']),
  )
  expect(outcomes(metrics)).toEqual({ accepted: expect.any(Number), staging_away: expect.any(Number) })
  await expectNoMoreRepeatedThanUnknown(table)
})

test.each([
  ['is away', (ms: number) => database.awayFor(ms)],
  ['hangs', (ms: number) => database.hangFor(ms)],
] as const)(
  'D8: PostgreSQL %s for 8 s: the SDKs lose nothing within their own deadline of 10 s',
  {
    timeout: 60_000,
  },
  async (how, outage) => {
    const sending = Promise.all(sdkSenders({ to: sluice, name: how, exports: 11 }))
    await wait(BEFORE_MS)
    await outage(SHORT_MS)
    const senders = await sending
    const table = fates(senders, await read())
    console.log(report(`PostgreSQL ${how} for 8 s`, table, await sluice.process.metrics()))
    const givenUp = senders.find(({ service }) => service === `${how}: js grpc`)?.errors ?? []
    expect(lossesIn(table)).toEqual({ [`${how}: js grpc traces`]: givenUp.length })
    await expectNoMoreRepeatedThanUnknown(table)
  },
)
