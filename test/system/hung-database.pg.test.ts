import { execFileSync } from 'node:child_process'
import { chmodSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { databaseUrlWithPassword, parseDatabaseUrl } from '../../src/postgres/location.ts'
import { closePool, openPool, type Sql } from '../../src/postgres/pool.ts'
import { sharedServer, stopServer } from '../support/postgres-server.ts'
import { post, type RunningSluice, spanRequest, startSluice } from './sluice.ts'

const ANSWER_MS_MAX = 8_000
const HUNG_MS = 12_000
const READ_ONLY_MS = 3_000
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** A server of this file alone: it is stopped and reconfigured as a whole. */
let folder: string
let serverUrl: string
let postmaster: number
let made = 0
let dataDir: string
let databaseUrl: string
let sql: Sql
let sluice: RunningSluice | undefined

const open = (url: string) =>
  openPool({ url: parseDatabaseUrl(url), name: 'test', connections: 1, statementTimeoutMs: 20_000 })

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-hung-'))
  serverUrl = await sharedServer(folder)
  postmaster = Number(readFileSync(join(folder, 'pid'), 'utf8'))
})
afterAll(async () => {
  await stopServer(postmaster)
  rmSync(folder, { recursive: true, force: true })
})
beforeEach(async () => {
  dataDir = mkdtempSync(join(tmpdir(), 'sluice-hung-data-'))
  chmodSync(dataDir, 0o755)
  const database = `hung_${made++}`
  const admin = open(serverUrl)
  await admin.unsafe(`CREATE DATABASE ${database}`)
  await closePool(admin, 1_000)
  databaseUrl = databaseUrlWithPassword({ ...parseDatabaseUrl(serverUrl), database })
  sql = open(databaseUrl)
})
afterEach(async () => {
  if (sluice !== undefined && !sluice.process.hasExited) await sluice.process.terminate()
  sluice = undefined
  await closePool(sql, 1_000)
  rmSync(dataDir, { recursive: true, force: true })
})

function start(settings: Record<string, string> = {}): Promise<RunningSluice> {
  return startSluice({
    DATABASE_URL: databaseUrl,
    DATA_DIR: dataDir,
    LEASE_SECONDS: '2',
    RETRY_BASE_MS: '20',
    RETRY_MAX_MS: '200',
    STAGING_MAX_BACKLOG: '100000',
    ...settings,
  })
}

/** The postmaster first, so that it makes no child meanwhile. Each backend is a process group of its own. */
function signalServer(signal: 'SIGSTOP' | 'SIGCONT'): void {
  process.kill(postmaster, signal)
  const children = execFileSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' })
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter(([, parent]) => parent === postmaster)
  for (const [pid = 0] of children) {
    try {
      process.kill(pid, signal)
    } catch {
      // ESRCH: it has ended since.
    }
  }
}

interface Answer {
  name: string
  /** 0 for none. */
  status: number
  startedMs: number
  endedMs: number
}

/** Sends spans on a few connections until told to stop. */
async function sendUntil(url: string, stop: AbortSignal): Promise<Answer[]> {
  const answers: Answer[] = []
  const lane = async (number: number) => {
    for (let i = 0; !stop.aborted; i++) {
      const name = `<${number}-${i}>`
      const startedMs = performance.now()
      const status = await post(url, spanRequest(name)).catch(() => 0)
      answers.push({ name, status, startedMs, endedMs: performance.now() })
      // A sender that is refused waits a while, as the answer asks it to.
      if (status !== 200) await pause(100)
    }
  }
  await Promise.all([0, 1, 2, 3].map(lane))
  return answers
}

const untilStoring = () =>
  expect
    .poll(async () => (await sql`SELECT 1 FROM stored_object LIMIT 3`).length, { timeout: 10_000 })
    .toBe(3)

/** Asks until a request, which no name is looked for in, is answered so. */
const untilAnswered = (status: number) =>
  expect.poll(() => post(sluice?.url ?? '', spanRequest('probe')), { timeout: 10_000 }).toBe(status)

const namesWith = (answers: readonly Answer[], status: number) =>
  answers.filter((answer) => answer.status === status).map(({ name }) => name)

/** Every answer is 200 or 503 and came in time; what got 200 is stored once, what got 503 at most once. */
async function expectKept(answers: readonly Answer[]): Promise<void> {
  expect(answers.filter(({ status }) => status !== 200 && status !== 503)).toEqual([])
  expect(answers.filter(({ startedMs, endedMs }) => endedMs - startedMs > ANSWER_MS_MAX)).toEqual([])
  const waiting = async () => (await sql`SELECT count(*)::int AS rows FROM ingestion_queue`)[0]?.rows
  await expect.poll(waiting, { timeout: 30_000, interval: 50 }).toBe(0)
  const stored = globSync(join(dataDir, 'objects/**/*.binpb'))
    .flatMap((path) => readFileSync(path, 'latin1').match(/<\d+-\d+>/g) ?? [])
    .sort()
  expect(stored).toEqual([...new Set(stored)])
  const accepted = namesWith(answers, 200)
  const doubtful = new Set(namesWith(answers, 503))
  expect(stored.filter((name) => !doubtful.has(name))).toEqual(accepted.sort())
  expect(await sql`SELECT 1 FROM dead_letter`).toEqual([])
}

test('G7: a server that turns read-only and ends no session is 503 as long as it is so, and 200 without a restart', async () => {
  sluice = await start()
  const writing = open(serverUrl)
  await writing.unsafe('SET default_transaction_read_only = off')
  const stop = new AbortController()
  const sending = sendUntil(sluice.url, stop.signal)
  await untilStoring()
  let readOnlyFrom = 0
  let readOnlyUntil = 0
  try {
    await writing.unsafe('ALTER SYSTEM SET default_transaction_read_only = on')
    await writing`SELECT pg_reload_conf()`
    await untilAnswered(503)
    readOnlyFrom = performance.now()
    await pause(READ_ONLY_MS)
    readOnlyUntil = performance.now()
  } finally {
    await writing.unsafe('ALTER SYSTEM RESET default_transaction_read_only')
    await writing`SELECT pg_reload_conf()`
    await closePool(writing, 1_000)
  }
  await untilAnswered(200)
  const wellFrom = performance.now()
  await pause(1_000)
  stop.abort()
  const answers = await sending
  const during = answers.filter(
    ({ startedMs, endedMs }) => startedMs > readOnlyFrom && endedMs < readOnlyUntil,
  )
  // Four senders, each of whom waits for 1.2 s.
  expect(during.length).toBeGreaterThan(4)
  expect([...new Set(during.map(({ status }) => status))]).toEqual([503])
  const after = answers.filter(({ startedMs }) => startedMs > wellFrom)
  expect(after.length).toBeGreaterThan(10)
  expect([...new Set(after.map(({ status }) => status))]).toEqual([200])
  await expectKept(answers)
  expect(await sluice.process.terminate(), sluice.process.lastWords()).toBe(0)
}, 120_000)

test('D14: while the whole server hangs every request is answered within 8 s, and afterwards all that was accepted is stored once', async () => {
  sluice = await start()
  const stop = new AbortController()
  const sending = sendUntil(sluice.url, stop.signal)
  await untilStoring()
  signalServer('SIGSTOP')
  const hungFrom = performance.now()
  try {
    await pause(HUNG_MS)
  } finally {
    signalServer('SIGCONT')
  }
  const hungUntil = performance.now()
  await untilAnswered(200)
  stop.abort()
  const answers = await sending
  const during = answers.filter(({ startedMs, endedMs }) => startedMs > hungFrom && endedMs < hungUntil)
  expect(during.length).toBeGreaterThan(3)
  expect([...new Set(during.map(({ status }) => status))]).toEqual([503])
  await expectKept(answers)
  expect(await sluice.process.terminate(), sluice.process.lastWords()).toBe(0)
}, 120_000)

test('SIGTERM while the whole server hangs ends the process when its grace is used up, with 1, and loses nothing', async () => {
  sluice = await start({ SHUTDOWN_GRACE_SECONDS: '3' })
  const stop = new AbortController()
  const sending = sendUntil(sluice.url, stop.signal)
  await untilStoring()
  signalServer('SIGSTOP')
  const { process: first } = sluice
  try {
    await pause(500)
    const ended = first.terminate(8_000)
    await pause(500)
    stop.abort()
    expect(await ended, first.lastWords()).toBe(1)
  } finally {
    signalServer('SIGCONT')
  }
  const answers = await sending
  expect(namesWith(answers, 200).length).toBeGreaterThan(10)
  sluice = await start()
  // Whoever was connected when the process ended got no answer; that is no 200 either.
  await expectKept(answers.map((answer) => (answer.status === 0 ? { ...answer, status: 503 } : answer)))
  expect(await sluice.process.terminate(), sluice.process.lastWords()).toBe(0)
}, 120_000)
