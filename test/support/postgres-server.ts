import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { appendFile, chmod, chown, mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { findBinaries } from '../../src/postgres/embedded-binaries.ts'
import { createCluster, EMBEDDED_USER, spawnPostmaster } from '../../src/postgres/embedded-cluster.ts'
import { databaseUrlWithPassword, noTls, parseDatabaseUrl, Secret } from '../../src/postgres/location.ts'
import { closePool, openPool } from '../../src/postgres/pool.ts'
import { CACHE_FOLDER, reachableBinaries } from '../../src/postgres/reachable.ts'
import { serverUser } from '../../src/postgres/server-user.ts'

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Durable as production, but small. */
const settings = `
listen_addresses = ''
max_connections = 200
shared_buffers = 64MB
max_wal_size = 256MB
min_wal_size = 64MB
autovacuum_naptime = 5s
`

/**
 * The address of the PostgreSQL server of this run, which the first caller of all workers starts in `folder`.
 *
 * @throws Error with a sentence when the server does not start: no test is skipped for the want of it.
 */
export async function sharedServer(folder: string): Promise<string> {
  const address = join(folder, 'address')
  if (await wins(join(folder, 'started'))) {
    try {
      const started = await start(folder)
      await writeFile(`${address}.new`, started)
      await rename(`${address}.new`, address)
    } catch (thrown) {
      await writeFile(join(folder, 'failed'), String(thrown))
      throw thrown
    }
  }
  while (!existsSync(address)) {
    if (existsSync(join(folder, 'failed'))) {
      throw new Error(`PostgreSQL did not start: ${await readFile(join(folder, 'failed'), 'utf8')}`)
    }
    await pause(20)
  }
  return readFile(address, 'utf8')
}

/** Ends the server and resolves when its process is gone. */
export async function stopServer(pid: number): Promise<void> {
  // SIGQUIT: the cluster is thrown away, so nothing needs to be written.
  for (let signal: NodeJS.Signals | 0 = 'SIGQUIT'; ; signal = 0) {
    try {
      process.kill(pid, signal)
    } catch {
      // ESRCH: it is gone.
      return
    }
    await pause(20)
  }
}

async function wins(path: string): Promise<boolean> {
  try {
    await mkdir(path)
    return true
  } catch {
    // Another worker was first.
    return false
  }
}

async function start(folder: string): Promise<string> {
  const user = serverUser()
  const binaries = await reachableBinaries(findBinaries(), user, CACHE_FOLDER)
  // The server's user must get through, and see nothing else.
  await chmod(folder, 0o711)
  const home = join(folder, 'postgres')
  await createCluster({ binaries, user, folder: home, sync: false })
  await appendFile(join(home, 'data', 'postgresql.conf'), settings)
  const socketFolder = join(home, 'run')
  await mkdir(socketFolder, { mode: 0o700 })
  if (user !== undefined) await chown(socketFolder, user.uid, user.gid)
  const logFile = join(folder, 'postgres.log')
  const child = spawnPostmaster({ binaries, user, dataFolder: join(home, 'data'), socketFolder, logFile })
  await once(child, 'spawn')
  await writeFile(join(folder, 'pid'), String(child.pid))
  const password = await readFile(join(home, 'password'), 'utf8')
  const url = databaseUrlWithPassword({
    host: socketFolder,
    port: 5432,
    database: 'postgres',
    user: EMBEDDED_USER,
    password: new Secret(password),
    tls: noTls,
  })
  await ready(url, async () => {
    if (child.exitCode !== null) throw new Error(await readFile(logFile, 'utf8'))
  })
  return url
}

async function ready(url: string, check: () => Promise<void>): Promise<void> {
  const sql = openPool({
    url: parseDatabaseUrl(url),
    name: `start ${randomUUID()}`,
    connections: 1,
    statementTimeoutMs: 5_000,
  })
  try {
    for (;;) {
      await check()
      try {
        await sql`SELECT 1`
        return
      } catch {
        // Not yet; `check` throws when it never will.
        await pause(20)
      }
    }
  } finally {
    await closePool(sql, 1_000)
  }
}
