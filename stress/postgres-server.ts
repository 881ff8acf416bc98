import { once } from 'node:events'
import { appendFile, chmod, chown, copyFile, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import postgres from 'postgres'
import { findBinaries } from '../src/postgres/embedded-binaries.ts'
import { createCluster, EMBEDDED_USER, spawnPostmaster } from '../src/postgres/embedded-cluster.ts'
import { CACHE_FOLDER, reachableBinaries } from '../src/postgres/reachable.ts'
import { serverUser } from '../src/postgres/server-user.ts'
import { freePort } from '../test/support/free-port.ts'

const certificates = join(import.meta.dirname, '../test/postgres/tls')
const readyWithinMs = 30_000

/** What differs from PostgreSQL's own defaults; durability does not. */
export const postgresSettings = {
  shared_buffers: '256MB',
  max_connections: '200',
  max_wal_size: '2GB',
  log_min_messages: 'warning',
  ssl: 'on',
  ssl_cert_file: 'localhost.crt',
  ssl_key_file: 'localhost.key',
} as const

/** Where the server's user can reach them, wherever the checkout is. */
const programs = () => reachableBinaries(findBinaries(), serverUser(), CACHE_FOLDER)

/** A real PostgreSQL server of its own, on a loopback port. */
export class PostgresServer {
  readonly #folder: string
  readonly #port: number
  readonly #password: string
  #pid: number

  private constructor(folder: string, port: number, password: string, pid: number) {
    this.#folder = folder
    this.#port = port
    this.#password = password
    this.#pid = pid
  }

  /** Makes a cluster in a temporary folder and resolves when it takes connections, in about 3 s. */
  static async start(): Promise<PostgresServer> {
    const folder = await mkdtemp(join(tmpdir(), 'sluice-stress-postgres-'))
    // The server's user must get through, and see nothing else.
    await chmod(folder, 0o711)
    const home = join(folder, 'postgres')
    await createCluster({ binaries: await programs(), user: serverUser(), folder: home, sync: false })
    await copyCertificate(join(home, 'data'))
    const port = await freePort()
    const lines = [
      "listen_addresses = '127.0.0.1'",
      `port = ${port}`,
      ...Object.entries(postgresSettings).map(([name, value]) => `${name} = '${value}'`),
    ]
    await appendFile(join(home, 'data', 'postgresql.conf'), `\n${lines.join('\n')}\n`)
    const password = await readFile(join(home, 'password'), 'utf8')
    const server = new PostgresServer(folder, port, password, 0)
    await server.restart()
    return server
  }

  get pid(): number {
    return this.#pid
  }

  async version(): Promise<string> {
    const sql = postgres(this.url('postgres'), { max: 1 })
    try {
      const [row] = await sql<{ server_version: string }[]>`SHOW server_version`
      return row?.server_version ?? 'unknown'
    } finally {
      await sql.end({ timeout: 1 })
    }
  }

  url(database: string): string {
    const { port, password } = { port: this.#port, password: encodeURIComponent(this.#password) }
    return `postgres://${EMBEDDED_USER}:${password}@127.0.0.1:${port}/${database}`
  }

  /** Starts the postmaster on the data that is there, and resolves when it takes connections. */
  async restart(): Promise<void> {
    const home = join(this.#folder, 'postgres')
    const logFile = join(this.#folder, 'postgres.log')
    const child = spawnPostmaster({
      binaries: await programs(),
      user: serverUser(),
      dataFolder: join(home, 'data'),
      socketFolder: join(home, 'data'),
      logFile,
    })
    await once(child, 'spawn')
    this.#pid = child.pid ?? 0
    const untilMs = performance.now() + readyWithinMs
    for (;;) {
      if (child.exitCode !== null || performance.now() > untilMs) {
        throw new Error(`PostgreSQL did not start: ${(await readFile(logFile, 'utf8')).slice(-2000)}`)
      }
      const sql = postgres(this.url('postgres'), { max: 1, connect_timeout: 2 })
      try {
        await sql`SELECT 1`
        return
      } catch {
        // Not yet; the loop ends with its log when it never will.
        await wait(50)
      } finally {
        await sql.end({ timeout: 1 })
      }
    }
  }

  /** Kills the server as a crash would, and resolves when its postmaster and every backend are gone. */
  async crash(): Promise<void> {
    process.kill(this.#pid, 'SIGKILL')
    await this.#gone()
    // The backends notice that their postmaster is gone and leave; the next start waits for their shared memory.
    await wait(200)
  }

  async stop(): Promise<void> {
    this.killNow()
    await this.#gone()
    await rm(this.#folder, { recursive: true, force: true })
  }

  /** For the last moment of a process that is being ended. SIGQUIT: nothing of the cluster is needed any more. */
  killNow(): void {
    if (isAlive(this.#pid)) process.kill(this.#pid, 'SIGQUIT')
  }

  async #gone(): Promise<void> {
    while (isAlive(this.#pid)) await wait(20)
  }
}

/** For those who ask for TLS; others need not. */
async function copyCertificate(dataFolder: string): Promise<void> {
  const user = serverUser()
  for (const name of ['localhost.crt', 'localhost.key']) {
    const file = join(dataFolder, name)
    await copyFile(join(certificates, name), file)
    await chmod(file, 0o600)
    if (user !== undefined) await chown(file, user.uid, user.gid)
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    // ESRCH: it is gone.
    return false
  }
}
