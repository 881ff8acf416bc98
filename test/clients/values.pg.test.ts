import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { type RunningSluice, startSluice } from '../system/sluice.ts'
import { sampleViews, sendJsSample } from './js-sample.ts'
import { JsSdk, jsTransports, watchJsLog } from './js-sdk.ts'
import { sendPythonSample } from './python-sdk.ts'
import type { ExpectedSample } from './sample.ts'
import { clientSignals, readStored } from './stored.ts'

let database: TestDatabase
let sql: Sql
let dataDir: string
let sluice: RunningSluice

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open()
  dataDir = mkdtempSync(join(tmpdir(), 'sluice-clients-'))
  chmodSync(dataDir, 0o755)
  sluice = await startSluice({ DATABASE_URL: database.databaseUrl, DATA_DIR: dataDir })
})
afterAll(async () => {
  expect(await sluice.process.terminate()).toBe(0)
  expect(sluice.process.strayLines).toEqual([])
  expect(sluice.process.log.filter(({ level }) => level === 'error' || level === 'warn')).toEqual([])
  await closePool(sql, 1000)
  await database.drop()
  rmSync(dataDir, { recursive: true, force: true })
})

/** That all of it is there, and once. */
async function expectStored(service: string, sent: ExpectedSample): Promise<void> {
  const stored = await readStored(sql, dataDir)
  for (const signal of clientSignals) expect(stored.resources(signal, service), signal).toEqual(sent[signal])
}

test.each(jsTransports)(
  'the SDK for JavaScript over %s: every value is stored once, as it was sent',
  async (transport) => {
    const log = watchJsLog()
    const service = `js ${transport} 😀`
    const sdk = new JsSdk({ transport, to: sluice, service, views: sampleViews })
    const sent = await sendJsSample(sdk, service)
    log.stop()
    expect(log.lines).toEqual([])
    expect(sdk.outcome).toEqual({ succeeded: 3, errors: [] })
    await expectStored(service, sent)
  },
)

test.each([
  ['http', 'gzip'],
  ['http', 'none'],
  ['grpc', 'gzip'],
  ['grpc', 'none'],
] as const)(
  'the SDK for Python over %s, compression %s: every value is stored once, as it was sent',
  async (transport, compression) => {
    const service = `python ${transport} ${compression} 😀`
    const { results, said, sent } = await sendPythonSample({ transport, compression, to: sluice, service })
    expect({ results, said }).toEqual({ results: ['SUCCESS', 'SUCCESS', 'SUCCESS'], said: [] })
    await expectStored(service, sent)
  },
)
