import type { Clock } from '../foundation/clock.ts'
import { Failure } from '../foundation/failure.ts'
import type { DatabaseLocation } from './location.ts'
import { answerOf, closePool, openPool, type Sql } from './pool.ts'
import { classifyPostgresError } from './sqlstate.ts'

/** `pg_advisory_lock` key of the owner of an embedded server. */
const OWNER_LOCK = 4_318_000
/** How long the session of a killed owner may linger. */
const PATIENCE_MS = 3_000
const RETRY_MS = 100
/** Whatever keeps the server from starting, such as a full disk, takes longer to go away. */
const RETRY_AFTER_FAILURE_MS = 5_000
const CLOSE_MS_MAX = 1_000
const NAME = 'sluice owner'
/** Code of the Failure when somebody else holds the lock. */
const IN_USE = 'DATA_DIR_IN_USE'

export interface OwnerOptions {
  location: DatabaseLocation
  dataDir: string
  clock: Clock
  log: (level: 'info' | 'warn' | 'error', message: string) => void
  /** Sees to it that the server takes connections, and starts it if need be. */
  bringUp: () => Promise<void>
  onLost: (failure: Failure) => void
}

/**
 * The right to an embedded server: a session advisory lock, which PostgreSQL itself gives back when its holder dies.
 *
 * **Maintained invariant**: the session holds the lock, or is getting it back, or `onLost` was told, or it was let go.
 */
export class EmbeddedOwner {
  readonly #options: OwnerOptions
  readonly #sql: Sql
  readonly #lettingGo = new AbortController()
  #holds = false
  #regaining: Promise<void> | undefined

  /** @throws Failure `configuration` when another process holds the lock. */
  static async acquire(options: OwnerOptions): Promise<EmbeddedOwner> {
    const owner = new EmbeddedOwner(options)
    try {
      await owner.#lock()
      return owner
    } catch (thrown) {
      await owner.close()
      throw thrown
    }
  }

  constructor(options: OwnerOptions) {
    this.#options = options
    this.#sql = openPool({
      url: options.location,
      name: `${NAME} ${process.pid}`,
      connections: 1,
      statementTimeoutMs: 10_000,
      clock: options.clock,
      onClose: () => {
        if (!this.#holds) return
        this.#holds = false
        this.#regaining = this.#regain()
      },
    })
  }

  /** The end of the session is no loss from now on. Resolves when nothing is done about it any more. */
  async letGo(): Promise<void> {
    this.#lettingGo.abort()
    await this.#regaining
  }

  async close(): Promise<void> {
    await this.letGo()
    this.#holds = false
    await closePool(this.#sql, CLOSE_MS_MAX)
  }

  async #lock(): Promise<void> {
    const { clock, dataDir } = this.#options
    const until = clock.monotonicMs() + PATIENCE_MS
    for (;;) {
      const [row] = await answerOf(
        this.#sql,
        this.#sql<[{ held: boolean }]>`SELECT pg_try_advisory_lock(${OWNER_LOCK}) AS held`,
      )
      if (row.held) {
        this.#holds = true
        return
      }
      if (clock.monotonicMs() > until) {
        throw new Failure(
          'configuration',
          `${dataDir} is in use by another Sluice${await this.#holder()}. Stop it, or set DATA_DIR to another folder.`,
          { code: IN_USE },
        )
      }
      await clock.sleep(RETRY_MS, this.#lettingGo.signal)
    }
  }

  async #holder(): Promise<string> {
    const rows = await answerOf<readonly { name: string }[]>(
      this.#sql,
      this.#sql<{ name: string }[]>`
        SELECT application_name AS name FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'advisory' AND objid = ${OWNER_LOCK} AND granted`,
    )
    const pid = rows[0]?.name.slice(NAME.length + 1)
    return pid === undefined ? '' : ` (process ${pid})`
  }

  async #regain(): Promise<void> {
    const { clock, log, bringUp, onLost } = this.#options
    const { signal } = this.#lettingGo
    while (!signal.aborted) {
      try {
        await bringUp()
        await this.#lock()
        log('warn', 'The lock on the embedded PostgreSQL was lost with its connection and is held again.')
        return
      } catch (thrown) {
        const failure = classifyPostgresError(thrown)
        if (signal.aborted) return
        if (failure.code === IN_USE) {
          onLost(failure)
          return
        }
        if (failure.kind !== 'outage') log('error', failure.message)
        await clock.sleep(failure.kind === 'outage' ? RETRY_MS : RETRY_AFTER_FAILURE_MS, signal)
      }
    }
  }
}
