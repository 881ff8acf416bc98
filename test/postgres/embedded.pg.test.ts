import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { findEmbedded, openEmbedded } from '../../src/postgres/embedded.ts'
import { freeDiskBytes } from '../../src/postgres/embedded-folder.ts'
import { closePool, openPool, type Sql } from '../../src/postgres/pool.ts'
import { isAlive } from '../../src/postgres/postmaster-pid.ts'
import { checkServer } from '../../src/postgres/server-check.ts'
import { EmbeddedFolders, openWatched } from './embedded-folders.ts'

const folders = new EmbeddedFolders()
afterAll(() => folders.clear())

async function query<T>(
  location: Parameters<typeof openPool>[0]['url'],
  use: (sql: Sql) => Promise<T>,
): Promise<T> {
  const sql = openPool({ url: location, name: 'test', connections: 1, statementTimeoutMs: 5_000 })
  try {
    return await use(sql)
  } finally {
    await closePool(sql, 1_000)
  }
}

async function messageOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
  } catch (thrown) {
    return `${(thrown as { kind?: string }).kind}: ${(thrown as Error).message}`
  }
  throw new Error('it should have failed')
}

const mode = (path: string) => (statSync(path).mode & 0o777).toString(8)

test('the first start makes a private database that keeps every promise, and the next one finds its data', async () => {
  const dataDir = folders.empty()
  mkdirSync(dataDir, { mode: 0o711 })
  mkdirSync(join(dataDir, 'postgres.new-cut-off'))
  const first = await openWatched(dataDir)
  expect(existsSync(join(dataDir, 'postgres.new-cut-off'))).toBe(false)
  expect({ adopted: first.server.adopted, log: first.log }).toEqual({ adopted: false, log: [] })
  const home = join(dataDir, 'postgres')
  const paths = [
    home,
    join(home, 'data'),
    join(home, 'password'),
    join(home, 'run'),
    join(dataDir, 'postgres.log'),
  ]
  expect(paths.map(mode)).toEqual(['700', '700', '600', '700', '600'])
  await query(first.server.location, async (sql) => {
    await checkServer(sql)
    await sql`CREATE TABLE kept AS SELECT 1 AS one`
    const [row] = await sql`
      SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
        current_setting('listen_addresses') AS listens, current_setting('max_wal_size') AS max_wal_size,
        datcollate AS collation, datlocprovider::text AS provider, pg_encoding_to_char(encoding) AS encoding
      FROM pg_database WHERE datname = current_database()`
    expect(row).toEqual({
      fsync: 'on',
      full_page_writes: 'on',
      listens: '',
      max_wal_size: '2GB',
      collation: 'C.UTF-8',
      provider: 'b',
      encoding: 'UTF8',
    })
  })
  const free = await freeDiskBytes(dataDir)
  expect(Number.isInteger(free) && free > 0).toBe(true)
  await first.server.stop()
  expect(isAlive(first.server.pid)).toBe(false)
  await first.server.stop()

  const second = await openWatched(dataDir)
  expect(await query(second.server.location, (sql) => sql`SELECT one FROM kept`)).toEqual([{ one: 1 }])
  await second.server.stop()
  const log = readFileSync(join(dataDir, 'postgres.log'), 'utf8')
  expect(log.includes(readFileSync(join(home, 'password'), 'utf8'))).toBe(false)
})

test('a wrong password does not get in', async () => {
  const { server } = await openWatched(await folders.prepared())
  const stranger = { ...server.location, password: undefined }
  await expect(query(stranger, async (sql) => await sql`SELECT 1`)).rejects.toMatchObject({ code: '28P01' })
  await server.stop()
})

test('a second instance is refused with the folder and the process in a sentence, and harms nobody', async () => {
  const dataDir = await folders.prepared()
  const { server, lost } = await openWatched(dataDir)
  expect(await messageOf(openWatched(dataDir))).toBe(
    `configuration: ${dataDir} is in use by another Sluice (process ${process.pid}). Stop it, or set DATA_DIR to ` +
      'another folder.',
  )
  expect(await query(server.location, (sql) => sql`SELECT 1 AS one`)).toEqual([{ one: 1 }])
  expect(await Promise.race([lost, 'still ours'])).toBe('still ours')
  await server.stop()
})

test('of two first starts at once one becomes the owner and the other is refused', async () => {
  const dataDir = folders.empty()
  const results = await Promise.allSettled([openWatched(dataDir), openWatched(dataDir)])
  expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
  for (const result of results) if (result.status === 'fulfilled') await result.value.server.stop()
})

test('a server that is stopping is waited for, and started anew', async () => {
  const dataDir = await folders.prepared()
  const first = await openWatched(dataDir)
  const stopping = first.server.stop()
  const second = await openWatched(dataDir)
  await stopping
  expect(second.server.pid).not.toBe(first.server.pid)
  expect(second.server.adopted).toBe(false)
  expect(await query(second.server.location, (sql) => sql`SELECT 1 AS one`)).toEqual([{ one: 1 }])
  await second.server.stop()
})

test('a running server is found for reading, and nothing where none runs', async () => {
  const dataDir = await folders.prepared()
  expect(await findEmbedded(dataDir)).toBeUndefined()
  expect(await findEmbedded(join(dataDir, 'nowhere'))).toBeUndefined()
  const { server } = await openWatched(dataDir)
  expect(await findEmbedded(dataDir)).toEqual(server.location)
  await server.stop()
  expect(await findEmbedded(dataDir)).toBeUndefined()
})

test('a path too long for a socket gets its socket elsewhere, and is found all the same', async () => {
  const dataDir = await folders.prepared(join('d'.repeat(60), 'e'.repeat(60)))
  const { server } = await openWatched(dataDir)
  expect(server.location.host.startsWith(dataDir)).toBe(false)
  expect(mode(server.location.host)).toBe('700')
  expect(await findEmbedded(dataDir)).toEqual(server.location)
  await server.stop()
  const again = await openWatched(dataDir)
  expect(again.server.location.host).toBe(server.location.host)
  await again.server.stop()
})

test('a database of another major version is refused, and left alone', async () => {
  const dataDir = await folders.prepared()
  writeFileSync(join(dataDir, 'postgres', 'data', 'PG_VERSION'), '17\n')
  expect(await messageOf(openWatched(dataDir))).toBe(
    `configuration: ${dataDir}/postgres/data was written by PostgreSQL 17, and this version of Sluice brings PostgreSQL ` +
      '18. Start the version of Sluice that wrote it, or move it with pg_upgrade.',
  )
})

test('a server that cannot start says why, in its own words', async () => {
  const dataDir = await folders.prepared()
  writeFileSync(join(dataDir, 'postgres', 'data', 'postgresql.auto.conf'), "shared_buffers = 'lots'\n")
  const message = await messageOf(openWatched(dataDir))
  expect(message).toContain(`configuration: PostgreSQL in ${dataDir}/postgres/data does not start.`)
  expect(message).toContain('invalid value for parameter "shared_buffers": "lots"')
})

test('a start can be given up while another process is at it', async () => {
  const dataDir = await folders.prepared()
  writeFileSync(join(dataDir, 'postgres.starting'), String(process.ppid))
  const signal = AbortSignal.timeout(200)
  const options = { dataDir, log: () => undefined, onOwnershipLost: () => undefined, signal }
  expect(await messageOf(openEmbedded(options))).toBe('outage: PostgreSQL was stopped before it was started.')
})
