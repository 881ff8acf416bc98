import { readFileSync } from 'node:fs'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { findEmbedded } from '../../src/postgres/embedded.ts'
import { closePool, openPool } from '../../src/postgres/pool.ts'
import { launchSluice, post, type RunningSluice, spanRequest, startSluice } from './sluice.ts'

let dataDir: string
let running: RunningSluice[]

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'sluice-life-'))
  // The server runs as another user when the tests run as root.
  await chmod(dataDir, 0o755)
  running = []
})
afterEach(async () => {
  for (const { process } of running) if (!process.hasExited) await process.terminate()
  await rm(dataDir, { recursive: true, force: true })
})

async function start(settings: Record<string, string> = {}, args: string[] = []): Promise<RunningSluice> {
  const sluice = await startSluice({ DATA_DIR: dataDir, ...settings }, args)
  running.push(sluice)
  return sluice
}

async function withDatabase<T>(use: (sql: ReturnType<typeof openPool>) => Promise<T>): Promise<T> {
  const url = await findEmbedded(dataDir)
  if (url === undefined) throw new Error('no server runs')
  const sql = openPool({ url, name: 'test', connections: 1, statementTimeoutMs: 10_000 })
  try {
    return await use(sql)
  } finally {
    await closePool(sql, 1000)
  }
}

interface Counts {
  waiting: number
  stored: number
}

const countRequests = () =>
  withDatabase(async (sql) => {
    const [row] = await sql<[Counts]>`
      SELECT (SELECT count(*)::int FROM ingestion_queue) AS waiting,
        (SELECT coalesce(sum(requests), 0)::int FROM stored_object) AS stored`
    return row
  })

/** Sends spans one after the other until told to stop; answers how many got which status, 0 for no answer. */
function sendUntil(url: string, stop: AbortSignal): Promise<Map<number, number>> {
  const one = async (name: string) => post(url, spanRequest(name)).catch(() => 0)
  const lane = async (counts: Map<number, number>, lane: number) => {
    for (let i = 0; !stop.aborted; i++) {
      const status = await one(`${lane}-${i}`)
      counts.set(status, (counts.get(status) ?? 0) + 1)
    }
  }
  const counts = new Map<number, number>()
  return Promise.all([0, 1, 2, 3].map((number) => lane(counts, number))).then(() => counts)
}

function postmasterPid(): number {
  return Number(readFileSync(join(dataDir, 'postgres/data/postmaster.pid'), 'utf8').split('\n')[0])
}

test('SIGTERM under load answers what is in hand and exits 0; every 200 is kept, and PostgreSQL stops last', async () => {
  const first = await start({ STAGING_MAX_BACKLOG: '100000' })
  const stop = new AbortController()
  const sending = sendUntil(first.url, stop.signal)
  await expect.poll(async () => (await countRequests()).stored, { timeout: 20_000 }).toBeGreaterThan(50)
  const pid = postmasterPid()
  const exit = await first.process.terminate()
  stop.abort()
  const answers = await sending
  expect(exit).toBe(0)
  expect(() => process.kill(pid, 0)).toThrow('ESRCH')
  expect([...answers.keys()].filter((status) => ![0, 200, 503].includes(status))).toEqual([])
  expect(first.process.strayLines).toEqual([])
  await start()
  await expect.poll(async () => (await countRequests()).waiting, { timeout: 20_000 }).toBe(0)
  expect((await countRequests()).stored).toBe(answers.get(200))
})

test('I2: after kill -9 the next start takes over the PostgreSQL that still runs, and what was accepted is stored', async () => {
  const first = await start({}, ['--role', 'ingress'])
  for (let i = 0; i < 10; i++) expect(await post(first.url, spanRequest(`${i}`))).toBe(200)
  const pid = postmasterPid()
  await first.process.kill()
  expect(await countRequests()).toEqual({ waiting: 10, stored: 0 })
  await start()
  expect(postmasterPid()).toBe(pid)
  await expect.poll(countRequests, { timeout: 20_000 }).toEqual({ waiting: 0, stored: 10 })
})

test('a second instance on a folder in use is refused with a sentence', async () => {
  await start()
  const second = await launchSluice({ DATA_DIR: dataDir })
  running.push(second)
  expect(await second.process.end()).toBe(2)
  const failed = second.process.log.find(({ event }) => event === 'start_failed')
  expect(failed?.error).toMatchObject({ kind: 'configuration', message: expect.stringContaining(dataDir) })
  // What could not start has nothing in hand: the log must not speak of leases that were left.
  expect(second.process.log.filter(({ event }) => event === 'stopped_early')).toEqual([])
  expect(second.process.strayLines).toEqual([])
})

test('settings that are wrong are all named at once, and nothing is started', async () => {
  const refused = await launchSluice({ DATA_DIR: dataDir, BATCH_MAX_SIZE: 'many', LEASE_SECONDS: '0' })
  expect(await refused.process.end()).toBe(2)
  const said = refused.process.strayLines.join('\n')
  expect(said).toContain('2 settings are wrong:')
  expect(said).toContain('BATCH_MAX_SIZE=many: must be a whole number')
  expect(said).toContain('LEASE_SECONDS=0: must be')
})

test('when the grace is used up it exits 1, and the lease that it left is taken over by the next', async () => {
  const first = await start({
    // A port that takes connections and never answers would do as well; one that refuses is an outage at once.
    S3_ENDPOINT: 'http://127.0.0.1:9',
    S3_ACCESS_KEY: 'a',
    S3_SECRET_KEY: 'b',
    RETRY_BASE_MS: '10',
    RETRY_MAX_MS: '50',
    SHUTDOWN_GRACE_SECONDS: '0',
  })
  expect(await post(first.url, spanRequest('a'))).toBe(200)
  await expect
    .poll(() => first.process.countEvents('batch_persist_failed'), { timeout: 20_000 })
    .toBeGreaterThan(0)
  expect(await first.process.terminate()).toBe(1)
  expect(first.process.log.at(-1)).toMatchObject({ event: 'stopped_early', level: 'error' })
  await start()
  await expect.poll(countRequests, { timeout: 20_000 }).toEqual({ waiting: 0, stored: 1 })
})

test('a PostgreSQL that is killed comes back, and no confirmed request is lost', async () => {
  const sluice = await start({ STAGING_MAX_BACKLOG: '100000' })
  const stop = new AbortController()
  const sending = sendUntil(sluice.url, stop.signal)
  await expect.poll(async () => (await countRequests()).stored, { timeout: 20_000 }).toBeGreaterThan(20)
  process.kill(postmasterPid(), 'SIGKILL')
  await expect
    .poll(() => post(sluice.url, spanRequest('again')).catch(() => 0), { timeout: 30_000 })
    .toBe(200)
  stop.abort()
  const answers = await sending
  await expect.poll(async () => (await countRequests()).waiting, { timeout: 30_000 }).toBe(0)
  const { stored } = await countRequests()
  const confirmed = (answers.get(200) ?? 0) + 1
  // A request whose commit came through while its answer was lost is stored too.
  expect(stored).toBeGreaterThanOrEqual(confirmed)
  expect(stored - confirmed).toBeLessThanOrEqual((answers.get(503) ?? 0) + (answers.get(0) ?? 0))
  expect(sluice.process.strayLines).toEqual([])
}, 90_000)

test('I4: SIGTERM after the PostgreSQL was killed and cannot come back ends within the grace, with an error line', async () => {
  const sluice = await start({ SHUTDOWN_GRACE_SECONDS: '5' })
  await rm(join(dataDir, 'postgres/data/global'), { recursive: true })
  process.kill(postmasterPid(), 'SIGKILL')
  const noticed = () => sluice.process.log.some(({ detail }) => String(detail).includes('does not start'))
  await expect.poll(noticed, { timeout: 20_000 }).toBe(true)
  const exit = await sluice.process.terminate(30_000)
  expect(exit).toBe(1)
  expect(sluice.process.log.some(({ level }) => level === 'error')).toBe(true)
}, 60_000)
