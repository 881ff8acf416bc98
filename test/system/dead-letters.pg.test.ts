import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import { jsonFromProtobuf } from '../../src/otlp/protobuf-to-json.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { SluiceProcess } from '../../stress/sluice-process.ts'
import { emptySummary, row, stagerOn } from '../queue/rows.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { post, type RunningSluice, spanRequest, startSluice } from './sluice.ts'

const main = join(import.meta.dirname, '../../src/main.ts')
let database: TestDatabase
let sql: Sql
let folder: string
let settings: Record<string, string>
let running: SluiceProcess[]

beforeEach(async () => {
  database = await cloneDatabase()
  sql = database.open()
  folder = await mkdtemp(join(tmpdir(), 'sluice-dead-'))
  settings = { DATABASE_URL: database.databaseUrl, DATA_DIR: join(folder, 'data') }
  running = []
})
afterEach(async () => {
  for (const process of running) if (!process.hasExited) await process.terminate()
  await closePool(sql, 1000)
  await database.drop()
  await rm(folder, { recursive: true, force: true })
})

async function start(args: readonly string[], changes: Record<string, string> = {}): Promise<RunningSluice> {
  const sluice = await startSluice({ ...settings, ...changes }, args)
  running.push(sluice.process)
  return sluice
}

/** Runs a command to its end. */
async function run(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = { PATH: process.env.PATH, ...settings }
  try {
    return { code: 0, ...(await promisify(execFile)(process.execPath, [main, ...args], { env })) }
  } catch (thrown) {
    return thrown as { code: number; stdout: string; stderr: string }
  }
}

async function countIn(table: string): Promise<number> {
  const [found] = await sql.unsafe<{ rows: number }[]>(`SELECT count(*)::int AS rows FROM ${table}`)
  return found?.rows ?? -1
}

/** The names of all spans in all objects below the folder. */
async function storedNames(): Promise<string[]> {
  const entries = await readdir(join(folder, 'data/objects'), { recursive: true, withFileTypes: true })
  const names: string[] = []
  for (const entry of entries) {
    if (!entry.isFile() || !entry.name.endsWith('.binpb')) continue
    const json = jsonFromProtobuf('traces', await readFile(join(entry.parentPath, entry.name)))
    for (const [, name = ''] of json.matchAll(/"name":"([^"]+)"/g)) names.push(name)
  }
  return names
}

test('a request that cannot be stored is found, shown, replayed and stored, by the commands alone', async () => {
  const ingress = await start(['--role', 'ingress'])
  for (const name of ['well', 'ill', 'sound']) expect(await post(ingress.url, spanRequest(name))).toBe(200)
  // What a release writes that an older one cannot read.
  await sql`UPDATE ingestion_queue SET summary = '\x09' WHERE id = (SELECT min(id) + 1 FROM ingestion_queue)`
  await start(['--role', 'worker'], { MAX_ATTEMPTS: '1' })
  await expect.poll(() => countIn('dead_letter'), { timeout: 20_000 }).toBe(1)
  await expect.poll(() => countIn('ingestion_queue'), { timeout: 20_000 }).toBe(0)

  const listed = await run('dead-letters', 'list', '--reason', 'data_refused', '--json')
  const [letter] = JSON.parse(listed.stdout) as { id: string; lastError: string }[]
  expect(letter?.lastError).toContain('version 9')
  const id = letter?.id ?? ''
  expect((await run('dead-letters', 'show', id)).stdout).toContain('"name": "ill"')
  expect(await run('dead-letters', 'show', '999')).toMatchObject({
    code: 3,
    stderr: 'There is no dead letter 999.\n',
  })
  expect((await run('dead-letters', 'show', 'x')).code).toBe(2)
  expect((await run('dead-letters', 'replay', '999')).code).toBe(3)
  expect((await run('dead-letters', 'list', '--reason', 'bored')).code).toBe(2)
  const to = join(folder, 'export')
  expect((await run('dead-letters', 'export', id, '--to', to)).stdout).toContain('1 dead letter ')
  expect(jsonFromProtobuf('traces', await readFile(join(to, `${id}.traces.binpb`)))).toContain('"ill"')
  expect(await run('dead-letters', 'discard', id)).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('nothing is deleted without --yes'),
  })
  const posted = await fetch(`${ingress.adminUrl}/api/v1/dead-letters/discard`, {
    method: 'POST',
    body: `{"ids":["${id}"]}`,
  })
  expect(posted.status).toBe(415)
  expect(await (await fetch(`${ingress.adminUrl}/api/v1/dead-letters`)).json()).toMatchObject({ total: 1 })

  await sql`UPDATE dead_letter SET summary = ${emptySummary}`
  expect((await run('dead-letters', 'replay', id)).stdout).toMatch(/^1 dead letter \(.*\) replayed\.\n$/)
  await expect.poll(() => countIn('ingestion_queue'), { timeout: 20_000 }).toBe(0)
  await expect.poll(storedNames).toHaveLength(3)
  expect((await storedNames()).sort()).toEqual(['ill', 'sound', 'well'])
  const [object] = await sql`SELECT requests FROM stored_object WHERE ${id}::bigint = ANY (queue_ids)`
  expect(object).toEqual({ requests: 1 })
  expect(await countIn('dead_letter')).toBe(0)
}, 240_000)

test('a replay of thousands that is killed again and again, and run twice at once: each is stored once', async () => {
  const names = Array.from({ length: 3000 }, (_, i) => `span-${i}`)
  const stager = stagerOn(database)
  await stager.start()
  await Promise.all(
    names.map((name) => stager.append(row(protobufFromJson('traces', spanRequest(name).body)))),
  )
  await stager.stop()
  await sql`
    WITH gone AS (DELETE FROM ingestion_queue RETURNING *)
    INSERT INTO dead_letter (id, received_at, batch_id, items, bytes, unpacked_bytes, attempts, signal, encoding, tenant,
      request_id, reason, summary, payload)
    SELECT id, received_at, gen_random_uuid(), items, bytes, unpacked_bytes, 1, signal, encoding, tenant, request_id,
      'data_refused', summary, payload
    FROM gone`
  // Half of it at a time: no replay can be over before it is killed.
  settings.STAGING_MAX_BACKLOG = '400'
  await start(['--role', 'worker'], { BATCH_MAX_SIZE: '100' })
  const replay = (name: string) => {
    const args = ['dead-letters', 'replay', '--json']
    const replaying = new SluiceProcess({ name, args, environment: settings, adminPort: 0 })
    running.push(replaying)
    return replaying
  }
  let left = names.length
  const leftAtKills: number[] = []
  for (let kill = 0; kill < 4; kill++) {
    const replaying = replay(`replay ${kill}`)
    await expect.poll(() => countIn('dead_letter'), { timeout: 20_000, interval: 5 }).toBeLessThan(left)
    await replaying.kill()
    left = await countIn('dead_letter')
    leftAtKills.push(left)
  }
  expect(leftAtKills.every((count) => count > 0 && count < names.length)).toBe(true)
  const last = [replay('one of two'), replay('the other')]
  expect(await Promise.all(last.map((one) => one.end()))).toEqual([0, 0])
  const replayed = last.flatMap(({ log }) => log.map((report) => report.replayed as number))
  expect(replayed.reduce((sum, count) => sum + count, 0)).toBe(left)
  await expect.poll(() => countIn('ingestion_queue'), { timeout: 30_000 }).toBe(0)
  expect(await countIn('dead_letter')).toBe(0)
  const [catalog] = await sql`
    SELECT count(*)::int AS requests, count(DISTINCT id)::int AS distinct FROM stored_object, unnest(queue_ids) AS id`
  expect(catalog).toEqual({ requests: names.length, distinct: names.length })
  const stored = await storedNames()
  expect(stored.length).toBe(names.length)
  expect(new Set(stored)).toEqual(new Set(names))
}, 240_000)
