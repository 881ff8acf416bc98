import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { SmallDisk } from '../../stress/faults/small-disk.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { post, type RunningSluice, spanRequest, startSluice } from './sluice.ts'

const diskBytes = 8 * 1024 * 1024

let database: TestDatabase
let sql: Sql
let disk: SmallDisk | undefined
let sluice: RunningSluice | undefined

beforeEach(async () => {
  database = await cloneDatabase()
  sql = database.open({ connections: 1 })
})
afterEach(async () => {
  sluice?.process.killNow()
  await sluice?.process.end()
  await disk?.unmount()
  await closePool(sql, 1_000)
  await database.drop()
})

test('a full disk under the folder store keeps requests waiting, blames none, and leaves no half object when there is room again', async () => {
  disk = await SmallDisk.mount(diskBytes)
  sluice = await startSluice({
    DATABASE_URL: database.databaseUrl,
    DATA_DIR: disk.folder,
    MAX_ATTEMPTS: '1',
    RETRY_BASE_MS: '20',
    RETRY_MAX_MS: '200',
    CIRCUIT_RESET_SECONDS: '1',
    BATCH_FLUSH_INTERVAL_MS: '20',
  })
  const waiting = async () => (await sql`SELECT count(*)::int AS rows FROM ingestion_queue`)[0]?.rows
  expect(await post(sluice.url, spanRequest('<before>'))).toBe(200)
  await expect.poll(waiting, { timeout: 20_000 }).toBe(0)
  await disk.fill()
  const names = Array.from({ length: 40 }, (_, i) => `<${i}>`)
  // Larger than what the filling may have left.
  const padding = 'x'.repeat(50_000)
  for (const name of names) {
    expect(await post(sluice.url, spanRequest(`${name}${padding}`, { service: 'full' }))).toBe(200)
  }
  const outages = async () =>
    (await sql`SELECT coalesce(sum(outages), 0)::int AS n FROM ingestion_batch`)[0]?.n
  await expect.poll(outages, { timeout: 20_000 }).toBeGreaterThan(2)
  expect(await waiting()).toBe(40)
  const batches = await sql`SELECT attempts, last_error FROM ingestion_batch WHERE last_error IS NOT NULL`
  expect(new Set(batches.map(({ attempts }) => attempts))).toEqual(new Set([0]))
  expect(batches[0]?.last_error).toContain('ENOSPC')
  await disk.empty()
  await expect.poll(waiting, { timeout: 30_000 }).toBe(0)
  expect(await sluice.process.terminate(), sluice.process.lastWords()).toBe(0)
  expect(await sql`SELECT 1 FROM dead_letter`).toHaveLength(0)

  const folder = join(disk.folder, 'objects')
  const files = (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name))
  const keys = (await sql<{ key: string }[]>`SELECT key FROM stored_object`).map(({ key }) =>
    join(folder, key),
  )
  expect(files.sort()).toEqual(keys.sort())
  const bodies = await Promise.all(files.map((file) => readFile(file, 'latin1')))
  const stored = bodies.flatMap((body) => body.match(/<\w+>/g) ?? [])
  expect(stored.sort()).toEqual(['<before>', ...names].sort())
}, 120_000)
