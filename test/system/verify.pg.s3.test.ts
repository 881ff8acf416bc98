import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { type RunningMinio, startMinio } from '../support/minio.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import {
  minioClient,
  post,
  type RunningSluice,
  realPayloads,
  spanRequest,
  startSluice,
  storeSettings,
} from './sluice.ts'

const bucket = 'everything-there'
const main = join(import.meta.dirname, '../../src/main.ts')
let database: TestDatabase
let minio: RunningMinio
let sluice: RunningSluice
let sql: Sql
let settings: Record<string, string>

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open()
  minio = await startMinio()
  settings = { DATABASE_URL: database.databaseUrl, ...storeSettings(minio, bucket) }
  sluice = await startSluice(settings)
})
afterAll(async () => {
  expect(await sluice.process.terminate()).toBe(0)
  await closePool(sql, 1000)
  await database.drop()
  await minio.stop()
})

interface Ended {
  code: number
  stdout: string
  stderr: string
}

/** Runs a command as a process of its own. */
function run(args: readonly string[], changes: Record<string, string> = {}): Promise<Ended> {
  return new Promise((resolve) => {
    const env = { PATH: process.env.PATH ?? '', ...settings, ...changes }
    execFile(process.execPath, [main, ...args], { env }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    )
  })
}

async function untilStored(): Promise<void> {
  const waiting = async () => (await sql`SELECT count(*)::int AS rows FROM ingestion_queue`)[0]?.rows
  await expect.poll(waiting, { timeout: 30_000, interval: 50 }).toBe(0)
}

test('everything that real clients sent is right, beside a running server; what is then damaged is named', async () => {
  const statuses = await Promise.all(realPayloads().map((payload) => post(sluice.url, payload)))
  expect(new Set(statuses)).toEqual(new Set([200]))
  await untilStored()
  const whole = await run(['verify'])
  expect(whole).toMatchObject({ code: 0, stderr: '' })
  expect(whole.stdout).toMatch(/^what +objects +size\nright +\d+ +[\d.]+ \w+\n$/)

  const [row] = await sql<[{ key: string }]>`SELECT key FROM stored_object LIMIT 1`
  await minioClient(minio).removeObject(bucket, row.key)
  const damaged = await run(['verify'])
  expect(damaged.code).toBe(4)
  expect(damaged.stdout).toContain(`missing`)
  expect(damaged.stdout).toContain(row.key)
  expect(JSON.parse((await run(['verify', '--json', '--fast'])).stdout)).toMatchObject({
    findings: [{ what: 'missing', key: row.key, detail: `not in ${bucket}` }],
    objects: { missing: { objects: 1 } },
  })
  expect(await run(['cat', row.key])).toMatchObject({
    code: 1,
    stderr: `the object ${row.key} is in the catalog and not in ${bucket}\n`,
  })
  await minioClient(minio).makeBucket('another')
  expect(await run(['cat', row.key], { S3_BUCKET: 'another' })).toMatchObject({
    code: 1,
    stderr: expect.stringContaining(
      `is in the catalog and not in another; it was put into ${bucket}, which the settings do not name`,
    ),
  })
  await sql`DELETE FROM stored_object WHERE key = ${row.key}`
}, 90_000)

test('a store that is away is said, and is not taken for missing objects', async () => {
  expect(await post(sluice.url, spanRequest('one'))).toBe(200)
  await untilStored()
  const away = await run(['verify'], { S3_ENDPOINT: 'http://127.0.0.1:9' })
  expect(away).toMatchObject({ code: 1, stdout: '' })
  expect(away.stderr).toContain('ECONNREFUSED')
}, 90_000)

test('two processes: while one sweeps the other waits, and kill -9 of the first gives the lock to the second', async () => {
  await sluice.process.terminate()
  const batchId = '01a210cc-5850-7602-b479-946708daf8e1'
  const key = `logs/tenant=default/year=2026/month=07/day=31/hour=00/logs_${batchId}.binpb`
  const valid = key.replace(/year=.*hour=\d\d/, hourOf(batchId))
  await minioClient(minio).putObject(bucket, valid, 'left over')
  await sql`INSERT INTO abandoned_batch (batch_id, keys, abandoned_at)
    VALUES (${batchId}, ARRAY[${valid}], now() - interval '1 day')`
  const silent = await silentServer()
  const first = spawn(process.execPath, [main, 'sweep'], {
    env: { PATH: process.env.PATH ?? '', ...settings, S3_ENDPOINT: silent.url, LEASE_SECONDS: '3600' },
    stdio: 'ignore',
  })
  const holders = async () =>
    (
      await sql`
      SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database
      WHERE locktype = 'advisory' AND granted AND datname = current_database()`
    ).length
  try {
    await expect.poll(holders, { timeout: 30_000, interval: 50 }).toBe(1)
    await silent.asked
    // Frozen, so that it does not give up meanwhile.
    first.kill('SIGSTOP')
    expect(await run(['sweep'])).toMatchObject({
      code: 1,
      stderr: 'Another process sweeps this database at the moment. Try again later.\n',
    })
    await kill(first)
    expect(await run(['sweep'])).toMatchObject({
      code: 0,
      stdout: `${valid}\nDeleted 1 object of batches that were given up.\n`,
    })
    expect(await holders()).toBe(0)
  } finally {
    await kill(first)
    silent.close()
  }
}, 120_000)

function hourOf(batchId: string): string {
  const time = new Date(Number.parseInt(batchId.replace('-', '').slice(0, 12), 16)).toISOString()
  return `year=${time.slice(0, 4)}/month=${time.slice(5, 7)}/day=${time.slice(8, 10)}/hour=${time.slice(11, 13)}`
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await once(child, 'exit')
}

/** Takes connections and never answers. */
async function silentServer(): Promise<{ url: string; asked: Promise<void>; close: () => void }> {
  const sockets: net.Socket[] = []
  const asked = Promise.withResolvers<void>()
  const server = net.createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => undefined)
    asked.resolve()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  const close = () => {
    for (const socket of sockets) socket.destroy()
    server.close()
  }
  return { url: `http://127.0.0.1:${port}`, asked: asked.promise, close }
}
