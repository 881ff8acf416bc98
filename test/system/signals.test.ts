import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { findEmbedded } from '../../src/postgres/embedded.ts'
import { closePool, openPool } from '../../src/postgres/pool.ts'
import { head, RawConnection } from '../ingress/serve.ts'
import { post, type RunningSluice, spanRequest, startSluice } from './sluice.ts'

let dataDir: string
let running: RunningSluice[]

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'sluice-signals-'))
  // The server runs as another user when the tests run as root.
  await chmod(dataDir, 0o755)
  running = []
})
afterEach(async () => {
  for (const { process } of running) if (!process.hasExited) await process.terminate()
  await rm(dataDir, { recursive: true, force: true })
})

async function start(settings: Record<string, string> = {}): Promise<RunningSluice> {
  const sluice = await startSluice({ DATA_DIR: dataDir, ...settings })
  running.push(sluice)
  return sluice
}

/** How many requests wait, and how many are stored, in the embedded database. */
async function countRequests(): Promise<{ waiting: number; stored: number }> {
  const url = await findEmbedded(dataDir)
  if (url === undefined) throw new Error('no server runs')
  const sql = openPool({ url, name: 'test', connections: 1, statementTimeoutMs: 10_000 })
  try {
    const [row] = await sql<[{ waiting: number; stored: number }]>`
      SELECT (SELECT count(*)::int FROM ingestion_queue) AS waiting,
        (SELECT coalesce(sum(requests), 0)::int FROM stored_object) AS stored`
    return row
  } finally {
    await closePool(sql, 1000)
  }
}

/** Sends spans from several connections until told to stop; `taken` counts those that got 200, as they come. */
function load(url: string, stop: AbortSignal) {
  const counts = { taken: 0, other: new Map<number, number>() }
  const lane = async (number: number) => {
    for (let i = 0; !stop.aborted; i++) {
      const status = await post(url, spanRequest(`${number}-${i}`)).catch(() => 0)
      if (status === 200) counts.taken++
      else counts.other.set(status, (counts.other.get(status) ?? 0) + 1)
    }
  }
  return { counts, done: Promise.all([0, 1, 2, 3].map(lane)) }
}

test('I1: Ctrl-C to the whole process group under load ends with 0, and every 200 is stored', async () => {
  // Started as the leader of a group of its own, as a shell does it.
  const first = await start({ STAGING_MAX_BACKLOG: '100000' })
  const stop = new AbortController()
  const { counts, done } = load(first.url, stop.signal)
  await expect.poll(() => counts.taken, { timeout: 20_000 }).toBeGreaterThan(200)
  process.kill(-first.process.pid, 'SIGINT')
  const exit = await first.process.end()
  stop.abort()
  await done
  expect(exit).toBe(0)
  expect(first.process.strayLines).toEqual([])
  expect(first.process.log.filter(({ level }) => level === 'error')).toEqual([])
  // 0 is a connection that was refused after the end.
  expect([...counts.other.keys()].filter((status) => status !== 0 && status !== 503)).toEqual([])
  await start()
  await expect.poll(async () => (await countRequests()).waiting, { timeout: 20_000 }).toBe(0)
  expect((await countRequests()).stored).toBe(counts.taken)
}, 90_000)

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
  test(`I1: a second ${signal} during a drain ends the process at once with 1`, async () => {
    const sluice = await start()
    expect(await post(sluice.url, spanRequest('kept'))).toBe(200)
    // A body of which half has come: the drain waits for the rest.
    const upload = new RawConnection(Number(new URL(sluice.url).port))
    upload.write(head('Content-Length: 1000')).write('x'.repeat(500))
    const inFlight = async () => (await sluice.process.metrics()).get('sluice_inflight_bytes')
    await expect.poll(inFlight).toBe(500)
    process.kill(sluice.process.pid, signal)
    await expect.poll(() => sluice.process.countEvents('stopping')).toBe(1)
    const startedMs = performance.now()
    process.kill(sluice.process.pid, signal)
    expect(await sluice.process.end()).toBe(1)
    expect(performance.now() - startedMs).toBeLessThan(1_000)
    expect(sluice.process.countEvents('stopped')).toBe(0)
    await upload.closed
    upload.socket.destroy()
    // The PostgreSQL that was left running is taken over, with all that was accepted.
    await start()
    await expect.poll(countRequests, { timeout: 20_000 }).toEqual({ waiting: 0, stored: 1 })
  }, 60_000)
}
