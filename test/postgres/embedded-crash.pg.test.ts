import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { findEmbedded } from '../../src/postgres/embedded.ts'
import type { DatabaseLocation } from '../../src/postgres/location.ts'
import { closePool, openPool, type Sql } from '../../src/postgres/pool.ts'
import { isAlive } from '../../src/postgres/postmaster-pid.ts'
import { EmbeddedFolders, openWatched } from './embedded-folders.ts'

/** As the owner takes it. */
const OWNER_LOCK = 4_318_000

const folders = new EmbeddedFolders()
afterAll(() => folders.clear())

async function query<T>(location: DatabaseLocation, use: (sql: Sql) => Promise<T>): Promise<T> {
  const sql = openPool({ url: location, name: 'test', connections: 1, statementTimeoutMs: 20_000 })
  try {
    return await use(sql)
  } finally {
    await closePool(sql, 1_000)
  }
}

const pidFile = (dataDir: string) => join(dataDir, 'postgres', 'data', 'postmaster.pid')

async function gone(pid: number): Promise<void> {
  while (isAlive(pid)) await new Promise((resolve) => setImmediate(resolve))
}

test('I2: after kill -9 of the owner alone, its server is still there and is taken over', async () => {
  const dataDir = await folders.prepared()
  const owner = await folders.process(dataDir)
  owner.child.kill('SIGKILL')
  expect(await owner.ends()).toBe('SIGKILL')
  expect(isAlive(owner.postmaster)).toBe(true)
  const { server, log } = await openWatched(dataDir)
  expect({ adopted: server.adopted, pid: server.pid }).toEqual({ adopted: true, pid: owner.postmaster })
  expect(log).toEqual([
    `info: PostgreSQL (process ${owner.postmaster}) was running already and was taken over.`,
  ])
  await server.stop()
  await gone(owner.postmaster)
})

test('I2: after kill -9 of owner and server, what was committed is there again', async () => {
  const dataDir = await folders.prepared()
  const owner = await folders.process(dataDir)
  const first = await openLocation(dataDir)
  await query(first, (sql) => sql`CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n`)
  owner.child.kill('SIGKILL')
  process.kill(owner.postmaster, 'SIGKILL')
  const { server } = await openWatched(dataDir)
  expect(server.adopted).toBe(false)
  expect(await query(server.location, (sql) => sql`SELECT count(*) FROM kept`)).toEqual([{ count: 1000n }])
  await server.stop()
})

async function openLocation(dataDir: string): Promise<DatabaseLocation> {
  const found = await findEmbedded(dataDir)
  if (found === undefined) throw new Error('no server runs')
  return found
}

test('I2: a postmaster.pid with the id of a living stranger is overruled, and the stranger lives on', async () => {
  const dataDir = await folders.prepared()
  const first = await openWatched(dataDir)
  const file = readFileSync(pidFile(dataDir), 'utf8')
  process.kill(first.server.pid, 'SIGKILL')
  await first.server.stop().catch(() => undefined)
  const stranger = spawn(process.execPath, ['-e', 'setInterval(() => undefined, 1e6)'], { stdio: 'ignore' })
  await once(stranger, 'spawn')
  writeFileSync(pidFile(dataDir), file.replace(/^\d+/, String(stranger.pid)))
  const { server } = await openWatched(dataDir)
  expect(await query(server.location, (sql) => sql`SELECT 1 AS one`)).toEqual([{ one: 1 }])
  await server.stop()
  expect(stranger.exitCode).toBeNull()
  expect(isAlive(stranger.pid ?? 0)).toBe(true)
  stranger.kill('SIGKILL')
  await once(stranger, 'exit')
})

test('I2: an empty postmaster.pid, as a crash leaves it, does not keep the server from starting', async () => {
  const dataDir = await folders.prepared()
  writeFileSync(pidFile(dataDir), '')
  const { server } = await openWatched(dataDir)
  expect(await query(server.location, (sql) => sql`SELECT 1 AS one`)).toEqual([{ one: 1 }])
  await server.stop()
})

test('I1: SIGTERM reaches our own handler only: the database serves the drain, is stopped last, and the exit code is 0', async () => {
  const dataDir = await folders.prepared()
  const owner = await folders.process(dataDir)
  owner.child.kill('SIGTERM')
  expect(await owner.ends()).toBe(0)
  expect(owner.said.map(({ event }) => event)).toEqual(['ready', 'signal', 'stopped'])
  expect(isAlive(owner.postmaster)).toBe(false)
  const { server } = await openWatched(dataDir)
  expect(await query(server.location, (sql) => sql`SELECT count(*) FROM drained`)).toEqual([{ count: 1n }])
  await server.stop()
})

test('Ctrl-C, which goes to the whole process group, does not reach the database before the drain is over', async () => {
  const dataDir = await folders.prepared()
  const owner = await folders.process(dataDir)
  process.kill(-(owner.child.pid ?? 0), 'SIGINT')
  expect(await owner.ends()).toBe(0)
  expect(owner.said.map(({ event }) => event)).toEqual(['ready', 'signal', 'stopped'])
  const { server } = await openWatched(dataDir)
  expect(await query(server.location, (sql) => sql`SELECT count(*) FROM drained`)).toEqual([{ count: 1n }])
  await server.stop()
})

test('I4: stopping a server that was killed ends soon, with an error or the server that replaced it', async () => {
  const { server } = await openWatched(await folders.prepared())
  process.kill(server.pid, 'SIGKILL')
  const started = performance.now()
  const outcome = await server.stop().then(
    () => 'stopped',
    (failure) => `${failure.kind}: ${failure.message}`,
  )
  expect([
    'stopped',
    `outage: PostgreSQL (process ${server.pid}) had ended before it was stopped.`,
  ]).toContain(outcome)
  expect(performance.now() - started).toBeLessThan(8_000)
})

test('a server that is killed under its owner is started again, and the lock is held again', async () => {
  const dataDir = await folders.prepared()
  const { server, log, logged } = await openWatched(dataDir)
  const sql = openPool({ url: server.location, name: 'goes on', connections: 1, statementTimeoutMs: 5_000 })
  const killed = server.pid
  process.kill(killed, 'SIGKILL')
  await logged('is held again')
  expect(log[0]).toBe(`error: PostgreSQL (process ${killed}) has ended; it is started again.`)
  expect(server.pid).not.toBe(killed)
  expect(
    await sql`SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = ${OWNER_LOCK}`,
  ).toEqual([{ count: 1n }])
  await closePool(sql, 1_000)
  await server.stop()
})

test('a lock that was lost with its session is held again before anybody else can have it', async () => {
  const { server, log, logged } = await openWatched(await folders.prepared())
  await query(server.location, (sql) => endOwnerSession(sql))
  await logged('is held again')
  expect(log).toEqual([
    'warn: The lock on the embedded PostgreSQL was lost with its connection and is held again.',
  ])
  expect(
    await query(server.location, (sql) => sql`SELECT pg_try_advisory_lock(${OWNER_LOCK}) AS held`),
  ).toEqual([{ held: false }])
  await server.stop()
})

test('an owner whose lock went to somebody else is told that it is the owner no more', async () => {
  const dataDir = await folders.prepared()
  const { server, lost } = await openWatched(dataDir)
  const rival = openPool({
    url: server.location,
    name: 'sluice owner 77',
    connections: 1,
    statementTimeoutMs: 0,
  })
  const taken = rival`SELECT pg_advisory_lock(${OWNER_LOCK})`.execute()
  await query(server.location, async (sql) => {
    while ((await sql`SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`).length === 0) {
      await sql`SELECT pg_sleep(0.01)`
    }
    await endOwnerSession(sql)
  })
  await taken
  expect(await lost).toBe(
    `${dataDir} is in use by another Sluice (process 77). Stop it, or set DATA_DIR to another folder.`,
  )
  await closePool(rival, 1_000)
  await server.stop()
})

async function endOwnerSession(sql: Sql): Promise<void> {
  await sql`
    SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = ${OWNER_LOCK} AND granted`
}
