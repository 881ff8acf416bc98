import type { ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { type Clock, systemClock } from '../foundation/clock.ts'
import { coerceError, Failure } from '../foundation/failure.ts'
import { findBinaries, type PostgresBinaries } from './embedded-binaries.ts'
import {
  createCluster,
  EMBEDDED_USER,
  requireVersion,
  spawnPostmaster,
  writeSettings,
} from './embedded-cluster.ts'
import {
  type EmbeddedFolder,
  embeddedFolder,
  locationIn,
  logTail,
  prepareSocketFolder,
  rotateLog,
} from './embedded-folder.ts'
import { EmbeddedOwner } from './embedded-owner.ts'
import type { DatabaseLocation } from './location.ts'
import { answerOf, closePool, openPool, type Sql } from './pool.ts'
import { disownPostmasterPid, isAlive, isPostmasterOf, readPostmaster } from './postmaster-pid.ts'
import { CACHE_FOLDER, makeFolder, reachableBinaries, requireReachable } from './reachable.ts'
import { type ServerUser, serverUser } from './server-user.ts'
import { classifyPostgresError } from './sqlstate.ts'
import { withStartLock } from './start-lock.ts'

const DATABASE = 'sluice'
const MAINTENANCE_DATABASE = 'postgres'
const POLL_MS = 25
const STILL_WAITING_MS = 10_000
/** A server that was killed leaves children behind for a moment, and while they live no other may start. */
const STARTS_MAX = 3
const START_AGAIN_MS = 1_000
/** A fast shutdown writes what is dirty, at most the shared buffers; then an immediate one, which loses nothing either. */
const STOP_FAST_MS = 20_000
const STOP_IMMEDIATE_MS = 5_000
const CLOSE_MS_MAX = 1_000
const DATABASE_EXISTS = '42P04'

export interface EmbeddedOptions {
  /** `DATA_DIR`; made if it is not there. */
  dataDir: string
  /** Told in a sentence what an operator should know. */
  log: (level: 'info' | 'warn' | 'error', message: string) => void
  /** Told when another process has become the owner, so that this one must end. */
  onOwnershipLost: (failure: Failure) => void
  /** For the programs, where the server's user cannot reach them where they are. */
  cacheFolder?: string
  /** Ends the wait for a server that recovers from a crash. */
  signal?: AbortSignal
  clock?: Clock
}

export interface EmbeddedPostgres {
  readonly location: DatabaseLocation
  /** Whether the server was running already, left by a process that was killed. */
  readonly adopted: boolean
  /** The process id of the postmaster. */
  readonly pid: number
  /**
   * Shuts the server down and resolves when its process is gone. To be called when nobody uses it any more.
   *
   * @throws Failure `outage`, soon, when it had ended before or cannot be ended.
   */
  stop(): Promise<void>
}

/**
 * Starts the private PostgreSQL in `DATA_DIR/postgres`, which is made at the first start, or takes over the one that a
 * killed process left running. The server is started again when it dies.
 *
 * The owner is whoever holds a session advisory lock in the database.
 *
 * @throws Failure `configuration` in a sentence, above all when another process owns the folder.
 */
export async function openEmbedded(options: EmbeddedOptions): Promise<EmbeddedPostgres> {
  const server = new EmbeddedServer(options)
  await server.open()
  return server
}

/**
 * The server that another process runs in `dataDir`, for commands that only read. Undefined when none answers there.
 */
export async function findEmbedded(dataDir: string): Promise<DatabaseLocation | undefined> {
  const folder = embeddedFolder(resolve(dataDir))
  if (!existsSync(folder.data)) return undefined
  const postmaster = readPostmaster(folder.data)
  if (postmaster.kind !== 'running' || postmaster.socketFolder === undefined) return undefined
  const location = locationIn(folder, postmaster.socketFolder, DATABASE)
  return (await knock(location)) === 'ready' ? location : undefined
}

class EmbeddedServer implements EmbeddedPostgres {
  readonly #options: EmbeddedOptions
  readonly #clock: Clock
  readonly #dataDir: string
  readonly #folder: EmbeddedFolder
  readonly #stopping = new AbortController()
  readonly #abort = () => this.#stopping.abort()
  #user: ServerUser | undefined
  #binaries: PostgresBinaries | undefined
  #child: ChildProcess | undefined
  #pid = 0
  #adopted = false
  #location: DatabaseLocation | undefined
  #owner: EmbeddedOwner | undefined
  #stopped: Promise<void> | undefined

  constructor(options: EmbeddedOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#dataDir = resolve(options.dataDir)
    this.#folder = embeddedFolder(this.#dataDir)
  }

  get location(): DatabaseLocation {
    if (this.#location === undefined) throw new Error('the embedded server was not opened')
    return this.#location
  }

  get adopted(): boolean {
    return this.#adopted
  }

  get pid(): number {
    return this.#pid
  }

  async open(): Promise<void> {
    const { signal } = this.#options
    signal?.addEventListener('abort', this.#abort)
    if (signal?.aborted) this.#abort()
    this.#user = clusterUser(this.#folder)
    await makeDataDir(this.#dataDir, this.#user)
    this.#binaries = await reachableBinaries(
      findBinaries(),
      this.#user,
      this.#options.cacheFolder ?? CACHE_FOLDER,
    )
    await this.#underStartLock(async () => {
      await this.#ensureCluster()
      try {
        await this.#bringUp()
      } catch (thrown) {
        if (this.#childRuns()) await this.#end()
        throw thrown
      }
      this.#owner = await EmbeddedOwner.acquire({
        location: this.location,
        dataDir: this.#dataDir,
        clock: this.#clock,
        log: this.#options.log,
        bringUp: () => this.#underStartLock(() => this.#bringUp()),
        onLost: this.#options.onOwnershipLost,
      })
    })
    signal?.removeEventListener('abort', this.#abort)
    if (this.#adopted) {
      this.#options.log('info', `PostgreSQL (process ${this.#pid}) was running already and was taken over.`)
    }
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop()
    return this.#stopped
  }

  async #stop(): Promise<void> {
    this.#abort()
    await this.#owner?.letGo()
    try {
      await this.#end()
    } finally {
      await this.#owner?.close()
    }
  }

  async #end(): Promise<void> {
    if (this.#childRuns()) this.#pid = this.#child?.pid ?? this.#pid
    if (!this.#isRunning()) {
      throw new Failure('outage', `PostgreSQL (process ${this.#pid}) had ended before it was stopped.`)
    }
    if (await this.#endsAfter('SIGINT', STOP_FAST_MS)) return
    this.#options.log('warn', `PostgreSQL did not stop within ${STOP_FAST_MS} ms; it is stopped at once.`)
    if (await this.#endsAfter('SIGQUIT', STOP_IMMEDIATE_MS)) return
    throw new Failure('outage', `PostgreSQL (process ${this.#pid}) does not stop.`)
  }

  async #endsAfter(signal: NodeJS.Signals, withinMs: number): Promise<boolean> {
    try {
      process.kill(this.#pid, signal)
    } catch (thrown) {
      // It has just ended by itself.
      if ((thrown as NodeJS.ErrnoException).code !== 'ESRCH') throw thrown
    }
    const until = this.#clock.monotonicMs() + withinMs
    while (this.#isRunning()) {
      if (this.#clock.monotonicMs() > until) return false
      await this.#clock.sleep(POLL_MS)
    }
    return true
  }

  /** A process id may have been given to another program; ours is the one that is our child or works in our folder. */
  #isRunning(): boolean {
    if (this.#child?.pid === this.#pid)
      return this.#child.exitCode === null && this.#child.signalCode === null
    return isAlive(this.#pid) && isPostmasterOf(this.#pid, this.#folder.data)
  }

  async #ensureCluster(): Promise<void> {
    const { home, data } = this.#folder
    const binaries = this.#requireBinaries()
    if (!existsSync(home)) {
      for (const name of readdirSync(this.#dataDir)) {
        // The lock is ours, so nobody is at work on it.
        if (name.startsWith('postgres.new-'))
          await rm(join(this.#dataDir, name), { recursive: true, force: true })
      }
      const unfinished = `${home}.new-${randomUUID()}`
      await createCluster({ binaries, user: this.#user, folder: unfinished })
      await rename(unfinished, home)
    }
    await requireVersion(data, binaries)
  }

  /** Until a connection succeeds: waits for a server that is coming or going, and starts one where there is none. */
  async #bringUp(): Promise<void> {
    const { data } = this.#folder
    const socketFolder = prepareSocketFolder(this.#folder, this.#user)
    let starts = 0
    let tellAt = this.#clock.monotonicMs() + STILL_WAITING_MS
    for (;;) {
      const state = readPostmaster(data)
      const reached = locationIn(
        this.#folder,
        (state.kind === 'running' && state.socketFolder) || socketFolder,
        MAINTENANCE_DATABASE,
      )
      const answer = await knock(reached)
      if (answer === 'ready') {
        this.#settleOn(reached, starts === 0)
        await ensureDatabase(reached)
        return
      }
      if (answer === 'away' && state.kind !== 'running' && !this.#childRuns()) {
        if (starts === STARTS_MAX) throw this.#startFailure()
        if (starts === 0 && this.#pid !== 0) {
          this.#options.log('error', `PostgreSQL (process ${this.#pid}) has ended; it is started again.`)
        }
        if (starts > 0) await this.#clock.sleep(START_AGAIN_MS, this.#stopping.signal)
        disownPostmasterPid(data, state)
        await this.#start(socketFolder)
        starts++
      }
      if (this.#clock.monotonicMs() > tellAt) {
        this.#options.log(
          'warn',
          'PostgreSQL does not take connections yet; after a crash it recovers first.',
        )
        tellAt += STILL_WAITING_MS
      }
      if (this.#stopping.signal.aborted)
        throw new Failure('outage', 'PostgreSQL was stopped while it started.')
      await this.#clock.sleep(POLL_MS, this.#stopping.signal)
    }
  }

  #settleOn(reached: DatabaseLocation, foundRunning: boolean): void {
    const state = readPostmaster(this.#folder.data)
    if (state.kind !== 'running') {
      throw new Failure(
        'configuration',
        `A PostgreSQL server answers for ${this.#dataDir}, but not one of this machine; two must not share a folder.`,
      )
    }
    this.#pid = state.pid
    this.#adopted = foundRunning && this.#location === undefined ? true : this.#adopted
    this.#location = { ...reached, database: DATABASE }
  }

  #childRuns(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }

  async #start(socketFolder: string): Promise<void> {
    await writeSettings(this.#folder.data, this.#user)
    rotateLog(this.#folder)
    const child = spawnPostmaster({
      binaries: this.#requireBinaries(),
      user: this.#user,
      dataFolder: this.#folder.data,
      socketFolder,
      logFile: this.#folder.logFile,
    })
    await new Promise<void>((settle, reject) => {
      child.once('spawn', settle)
      child.once('error', (cause) =>
        reject(
          new Failure(
            'configuration',
            `PostgreSQL cannot be run on this system: ${coerceError(cause).message}`,
            {
              cause,
            },
          ),
        ),
      )
    })
    this.#child = child
  }

  #startFailure(): Failure {
    return new Failure(
      'configuration',
      `PostgreSQL in ${this.#folder.data} does not start. It wrote to ${this.#folder.logFile}:\n${logTail(this.#folder)}`,
    )
  }

  #underStartLock(work: () => Promise<void>): Promise<void> {
    return withStartLock(this.#folder.startLock, { clock: this.#clock, signal: this.#stopping.signal }, work)
  }

  #requireBinaries(): PostgresBinaries {
    if (this.#binaries === undefined) throw new Error('the embedded server was not opened')
    return this.#binaries
  }
}

/** As root, the user whom an existing cluster belongs to, since PostgreSQL refuses every other. */
function clusterUser({ data }: EmbeddedFolder): ServerUser | undefined {
  const usual = serverUser()
  if (usual === undefined || !existsSync(data)) return usual
  const { uid, gid } = statSync(data)
  return uid === 0 || uid === usual.uid ? usual : { name: String(uid), uid, gid }
}

/** The server's user must get through to its own folder; to look around is for the owner only. */
async function makeDataDir(dataDir: string, user: ServerUser | undefined): Promise<void> {
  if (user !== undefined) requireReachable(dataDir, user)
  try {
    await makeFolder(dataDir, user === undefined ? 0o700 : 0o711)
  } catch (cause) {
    throw new Failure('configuration', `DATA_DIR=${dataDir} cannot be made: ${coerceError(cause).message}`, {
      cause,
    })
  }
}

type Answer = 'ready' | 'busy' | 'away'

/** `busy` is a server that answers, but takes no connections: it is starting, recovering or stopping. */
async function knock(location: DatabaseLocation): Promise<Answer> {
  return await withSession(location, async (sql) => {
    try {
      await answerOf(sql, sql`SELECT 1`)
      return 'ready'
    } catch (thrown) {
      const failure = classifyPostgresError(thrown)
      if (failure.kind !== 'outage') throw failure
      return failure.code === 'ECONNREFUSED' || failure.code === 'ENOENT' ? 'away' : 'busy'
    }
  })
}

async function ensureDatabase(location: DatabaseLocation): Promise<void> {
  await withSession(location, async (sql) => {
    const [found] = await answerOf(sql, sql`SELECT 1 FROM pg_database WHERE datname = ${DATABASE}`)
    if (found !== undefined) return
    try {
      await answerOf(sql, sql.unsafe(`CREATE DATABASE ${DATABASE} OWNER ${EMBEDDED_USER}`))
    } catch (thrown) {
      const failure = classifyPostgresError(thrown)
      if (failure.code !== DATABASE_EXISTS) throw failure
    }
  })
}

async function withSession<T>(location: DatabaseLocation, work: (sql: Sql) => Promise<T>): Promise<T> {
  const sql = openPool({ url: location, name: 'sluice start', connections: 1, statementTimeoutMs: 30_000 })
  try {
    return await work(sql)
  } finally {
    await closePool(sql, CLOSE_MS_MAX)
  }
}
