import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { appendFile, chmod, chown, copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import postgres from 'postgres'
import { findBinaries, type PostgresBinaries } from '../src/postgres/embedded-binaries.ts'
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

export interface ServerOptions {
  /** The folder that the whole cluster lies below; a temporary one unless told. Its log lies elsewhere. */
  disk?: string | undefined
  /** What differs from `postgresSettings`. */
  settings?: Readonly<Record<string, string>>
  /** What its processes find in their environment besides the usual. */
  environment?: Readonly<Record<string, string>> | undefined
}

/** What the log says when processes of a postmaster that was killed are still there. */
const notYetGone =
  /pre-existing shared memory block .* is still in use|lock file "postmaster.pid" already exists/

/** A real PostgreSQL server of its own, on a loopback port. */
export class PostgresServer {
  readonly #folder: string
  readonly #home: string
  readonly #binaries: PostgresBinaries
  readonly #port: number
  readonly #password: string
  #pid = 0

  private constructor(of: {
    folder: string
    home: string
    binaries: PostgresBinaries
    port: number
    password: string
  }) {
    this.#folder = of.folder
    this.#home = of.home
    this.#binaries = of.binaries
    this.#port = of.port
    this.#password = of.password
  }

  /** Makes a cluster and resolves when it takes connections, in about 3 s. */
  static async start({ disk, settings, environment }: ServerOptions = {}): Promise<PostgresServer> {
    const folder = await mkdtemp(join(tmpdir(), 'sluice-stress-postgres-'))
    // The server's user must get through, and see nothing else.
    await chmod(folder, 0o711)
    const home = join(disk ?? folder, 'postgres')
    const found = await programs()
    await createCluster({ binaries: found, user: serverUser(), folder: home, sync: false })
    await copyCertificate(join(home, 'data'))
    const port = await freePort()
    const lines = [
      "listen_addresses = '127.0.0.1'",
      `port = ${port}`,
      ...Object.entries({ ...postgresSettings, ...settings }).map(([name, value]) => `${name} = '${value}'`),
    ]
    await appendFile(join(home, 'data', 'postgresql.conf'), `\n${lines.join('\n')}\n`)
    const password = await readFile(join(home, 'password'), 'utf8')
    const binaries =
      environment === undefined
        ? found
        : await withEnvironment(found, join(folder, 'postgres.sh'), environment)
    const server = new PostgresServer({ folder, home, binaries, port, password })
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

  get hasEnded(): boolean {
    return !isAlive(this.#pid)
  }

  /** Everything that the server has written into its log. */
  async log(): Promise<string> {
    return existsSync(this.#logFile) ? await readFile(this.#logFile, 'utf8') : ''
  }

  /**
   * Starts the postmaster on the data that is there, and resolves when it takes connections. Processes of one that was
   * killed are waited for: while one of them is there, the server refuses to start.
   *
   * @throws Error with the end of its log when it ends for another reason, or is not there within 30 s.
   */
  async restart(): Promise<void> {
    const untilMs = performance.now() + readyWithinMs
    for (;;) {
      const before = await this.log()
      if (await this.#startOnce(untilMs)) return
      const said = (await this.log()).slice(before.length)
      if (!notYetGone.test(said) || performance.now() > untilMs) {
        throw new Error(`PostgreSQL did not start: ${said.slice(-2000)}`)
      }
      await wait(50)
    }
  }

  /** Answers whether it takes connections; false when it has ended instead, or the time is over. */
  async #startOnce(untilMs: number): Promise<boolean> {
    const child = spawnPostmaster({
      binaries: this.#binaries,
      user: serverUser(),
      dataFolder: join(this.#home, 'data'),
      socketFolder: join(this.#home, 'data'),
      logFile: this.#logFile,
    })
    await once(child, 'spawn')
    this.#pid = child.pid ?? 0
    while (child.exitCode === null && child.signalCode === null && performance.now() < untilMs) {
      const sql = postgres(this.url('postgres'), { max: 1, connect_timeout: 2 })
      try {
        await sql`SELECT 1`
        return true
      } catch {
        // Not yet; the loop ends when it never will.
        await wait(50)
      } finally {
        await sql.end({ timeout: 1 })
      }
    }
    return false
  }

  get #logFile(): string {
    return join(this.#folder, 'postgres.log')
  }

  /**
   * Kills the server as a crash would, and resolves when its postmaster is gone. Its other processes notice that and
   * leave; the next start waits for them.
   */
  async crash(): Promise<void> {
    process.kill(this.#pid, 'SIGKILL')
    await this.#gone()
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

/** The same programs, but for a server that finds more in its environment. The process keeps its id. */
async function withEnvironment(
  binaries: PostgresBinaries,
  file: string,
  environment: Readonly<Record<string, string>>,
): Promise<PostgresBinaries> {
  const lines = Object.entries(environment).map(([name, value]) => `export ${name}='${value}'`)
  await writeFile(file, ['#!/bin/sh', ...lines, `exec '${binaries.postgres}' "$@"`, ''].join('\n'), {
    mode: 0o755,
  })
  return { ...binaries, postgres: file }
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
