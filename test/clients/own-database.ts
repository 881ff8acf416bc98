import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { findBinaries } from '../../src/postgres/embedded-binaries.ts'
import { spawnPostmaster } from '../../src/postgres/embedded-cluster.ts'
import { databaseUrlWithPassword, parseDatabaseUrl } from '../../src/postgres/location.ts'
import { closePool, openPool, type Sql } from '../../src/postgres/pool.ts'
import { CACHE_FOLDER, reachableBinaries } from '../../src/postgres/reachable.ts'
import { serverUser } from '../../src/postgres/server-user.ts'
import { sharedServer, stopServer } from '../support/postgres-server.ts'

/** A PostgreSQL server that one test file has for itself: it is killed, brought back and frozen as a whole. */
export class OwnDatabase {
  readonly url: string
  readonly #folder: string
  #postmaster: number

  private constructor(folder: string, url: string) {
    this.#folder = folder
    this.url = url
    this.#postmaster = Number(readFileSync(join(folder, 'pid'), 'utf8'))
  }

  /** Starts it with an empty database. */
  static async start(): Promise<OwnDatabase> {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-clients-postgres-'))
    const server = parseDatabaseUrl(await sharedServer(folder))
    const database = new OwnDatabase(folder, databaseUrlWithPassword({ ...server, database: 'clients' }))
    await database.#asAdmin((admin) => admin.unsafe('CREATE DATABASE clients'))
    return database
  }

  open(): Sql {
    return openPool({
      url: parseDatabaseUrl(this.url),
      name: 'test',
      connections: 1,
      statementTimeoutMs: 20_000,
    })
  }

  /**
   * Takes it away for so long: kills it as a crash would, starts it again on what is on disk, and takes connections
   * when the time is over, however long it took to recover.
   */
  async awayFor(ms: number): Promise<void> {
    const overMs = performance.now() + ms
    await this.#asAdmin((admin) => admin.unsafe('ALTER DATABASE clients ALLOW_CONNECTIONS false'))
    await stopServer(this.#postmaster)
    await wait(ms / 2)
    await this.#restart()
    await this.#asAdmin(async (admin) => {
      await untilAnswered(admin)
      await wait(overMs - performance.now())
      await admin.unsafe('ALTER DATABASE clients ALLOW_CONNECTIONS true')
    })
  }

  /** Lets it hang for so long: connections stand, and nobody answers. */
  async hangFor(ms: number): Promise<void> {
    this.#signal('SIGSTOP')
    await wait(ms)
    this.#signal('SIGCONT')
  }

  /** Ends it and deletes it. */
  async remove(): Promise<void> {
    await stopServer(this.#postmaster)
    rmSync(this.#folder, { recursive: true, force: true })
  }

  async #restart(): Promise<void> {
    const user = serverUser()
    const home = join(this.#folder, 'postgres')
    const child = spawnPostmaster({
      binaries: await reachableBinaries(findBinaries(), user, CACHE_FOLDER),
      user,
      dataFolder: join(home, 'data'),
      socketFolder: join(home, 'run'),
      logFile: join(this.#folder, 'postgres.log'),
    })
    await once(child, 'spawn')
    this.#postmaster = child.pid ?? 0
  }

  async #asAdmin(use: (admin: Sql) => Promise<unknown>): Promise<void> {
    const url = { ...parseDatabaseUrl(this.url), database: 'postgres' }
    const admin = openPool({ url, name: 'admin', connections: 1, statementTimeoutMs: 20_000 })
    try {
      await use(admin)
    } finally {
      await closePool(admin, 1_000)
    }
  }

  /** The postmaster first, so that it makes no child meanwhile. Each backend is a process group of its own. */
  #signal(signal: NodeJS.Signals): void {
    process.kill(this.#postmaster, signal)
    const children = execFileSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' })
      .split('\n')
      .map((line) => line.trim().split(/\s+/).map(Number))
      .filter(([, parent]) => parent === this.#postmaster)
    for (const [pid = 0] of children) {
      try {
        process.kill(pid, signal)
      } catch {
        // ESRCH: it has ended since.
      }
    }
  }
}

async function untilAnswered(sql: Sql): Promise<void> {
  for (;;) {
    try {
      await sql`SELECT 1`
      return
    } catch {
      // It is recovering.
      await wait(20)
    }
  }
}
