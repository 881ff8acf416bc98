import type { Clock } from '../foundation/clock.ts'
import { Failure } from '../foundation/failure.ts'
import { Periodic } from '../foundation/periodic.ts'
import type { Service } from '../foundation/service.ts'
import { copyIn } from '../postgres/copy.ts'
import type { Sql } from '../postgres/pool.ts'
import { classifyPostgresError } from '../postgres/sqlstate.ts'
import { encodeRows, rowBytes, type StagedRow, stageText } from './copy-format.ts'

const GROUP_ROWS_MAX = 256
const GROUP_BYTES_MAX = 8 * 1024 * 1024
const LANES = 2
/**
 * What arrives waits so long for a commit that is under way, because larger groups are cheaper for everybody; then, or
 * when the rows of a whole group wait, a second connection takes it (docs/decisions/0029-groups-wait-for-each-other.md).
 */
const QUICK_COMMIT_MS_MAX = 10
/**
 * A request that the database has not taken up by then is refused: nothing of it was sent, so its sender may repeat
 * it. With the 700 ms that a connection may take, a database that is away is answered for within 2 s; one that is
 * away for a moment only, a restart or a failover, is not noticed by any sender.
 */
const WAIT_MS_MAX = 1_200
/** So long nothing is tried after the database could not be reached. */
const AWAY_PAUSE_MS = 90
export const STAGING_CONNECT_MS_MAX = 700
/** A commit that says nothing for so long is given up, and with it its connection. */
const COMMIT_MS_MAX = 5_000
/** From the first moment to the answer, whatever the database does: senders give up after 10 s. */
const ANSWER_MS_MAX = 7_000
/** Less than this is not worth beginning a commit for. */
const COMMIT_MS_MIN = 250
const WATCH_INTERVAL_MS = 100

export interface StagerOptions {
  /** Opens a pool of one connection whose notices go to `onNotice`; called again after a connection was given up. */
  open: (onNotice: (notice: { severity?: string; message?: string }) => void) => Sql
  /** Must not wait for a connection that hangs. */
  close: (sql: Sql) => Promise<void>
  clock: Clock
  /** Told of each group that was committed. */
  onCommitted?: (group: { rows: number; bytes: number; durationMs: number }) => void
  /** Told when a commit was given up whose outcome nobody knows: its rows may be in the queue. */
  onUnknown?: (rows: number) => void
}

interface Waiting {
  row: StagedRow
  bytes: number
  sinceMs: number
  resolve: () => void
  reject: (failure: Failure) => void
}

/**
 * Group commit: requests that arrive while a transaction is under way share the next one, with one COPY and one
 * fsync. A request that is alone waits for nothing, and none waits for a transaction that takes long.
 *
 * **Maintained invariant**: `append` resolves only after the commit of a transaction with `synchronous_commit=on`
 * that gave no warning. A rejection means that the row was not staged, or that nobody can know.
 */
export class Stager implements Service {
  readonly name = 'stager'
  readonly #options: StagerOptions
  readonly #watch: Periodic
  readonly #lanes: Lane[] = []
  #waiting: Waiting[] = []
  /** Why the database could not be reached when that was last tried, and until when that counts. */
  #away: { failure: Failure; untilMs: number } | undefined

  constructor(options: StagerOptions) {
    this.#options = options
    for (let i = 0; i < LANES; i++) this.#lanes.push(new Lane(options))
    this.#watch = new Periodic({
      clock: options.clock,
      pauseMs: () => WATCH_INTERVAL_MS,
      work: async () => {
        this.#expire()
        this.#dispatch()
      },
    })
  }

  async start(): Promise<void> {
    this.#watch.start()
  }

  /** Commits what is waiting, then closes the connections. */
  async stop(): Promise<void> {
    await this.#watch.stop()
    while (this.#waiting.length > 0 || this.#lanes.some((lane) => lane.busy)) {
      await this.#options.clock.sleep(5)
      this.#expire()
      this.#dispatch()
    }
    await Promise.all(this.#lanes.map((lane) => lane.close()))
  }

  /**
   * Resolves once the row is on disk.
   *
   * @throws Failure `outage` when the database did not take it in time (within 7 s), `data` when it refuses this
   * very row.
   */
  append(row: StagedRow): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({
        row,
        bytes: rowBytes(row),
        sinceMs: this.#options.clock.monotonicMs(),
        resolve,
        reject,
      })
      this.#dispatch()
    })
  }

  #dispatch(): void {
    if (this.#away !== undefined && this.#options.clock.monotonicMs() < this.#away.untilMs) return
    for (const lane of this.#lanes) {
      if (lane.busy) continue
      if (this.#waiting.length === 0 || this.#isGathering()) return
      const group = this.#takeGroup()
      lane.commit(group).then(
        (failure) => {
          if (failure === undefined) this.#away = undefined
          else this.#putBack(group, failure)
          this.#dispatch()
        },
        // A lane settles every request of its group itself; whatever else it throws is a bug and must not hide.
        (thrown) =>
          queueMicrotask(() => {
            throw thrown
          }),
      )
    }
  }

  /** Nothing of these was sent: they wait on, each as long as it may. */
  #putBack(group: readonly Waiting[], failure: Failure): void {
    this.#away = { failure, untilMs: this.#options.clock.monotonicMs() + AWAY_PAUSE_MS }
    this.#waiting.unshift(...group)
    this.#expire()
  }

  /** The longest waiting requests, in order, within the bounds of a group; the first one always. */
  #takeGroup(): Waiting[] {
    let count = 0
    let bytes = 0
    for (const entry of this.#waiting) {
      if (count === GROUP_ROWS_MAX || (count > 0 && bytes + entry.bytes > GROUP_BYTES_MAX)) break
      bytes += entry.bytes
      count++
    }
    return this.#waiting.splice(0, count)
  }

  /** Whether more may join: a commit is under way that is likely to be over soon. */
  #isGathering(): boolean {
    if (this.#waiting.length >= GROUP_ROWS_MAX) return false
    const slowMs = this.#options.clock.monotonicMs() - QUICK_COMMIT_MS_MAX
    return this.#lanes.some((lane) => lane.busySinceMs !== undefined && lane.busySinceMs > slowMs)
  }

  #expire(): void {
    const oldest = this.#options.clock.monotonicMs() - WAIT_MS_MAX
    if (!this.#waiting.some((entry) => entry.sinceMs <= oldest)) return
    const late = this.#waiting.filter((entry) => entry.sinceMs <= oldest)
    this.#waiting = this.#waiting.filter((entry) => entry.sinceMs > oldest)
    const failure =
      this.#away?.failure ?? new Failure('outage', `the database took up no request for ${WAIT_MS_MAX} ms`)
    for (const entry of late) entry.reject(failure)
  }
}

/** One connection and the transaction on it. */
class Lane {
  readonly #options: StagerOptions
  #sql: Sql | undefined
  #warning: string | undefined
  busySinceMs: number | undefined

  constructor(options: StagerOptions) {
    this.#options = options
  }

  get busy(): boolean {
    return this.busySinceMs !== undefined
  }

  /** Settles every request of the group, unless an outage lets nothing of it be sent: that failure is answered. */
  async commit(group: readonly Waiting[]): Promise<Failure | undefined> {
    this.busySinceMs = this.#options.clock.monotonicMs()
    try {
      const { failure, sent } = await this.#copy(group)
      if (failure === undefined) {
        for (const entry of group) entry.resolve()
      } else if (failure.kind === 'data' && group.length > 1) {
        await this.#commitAlone(group)
      } else if (failure.kind === 'outage' && !sent) {
        return failure
      } else {
        for (const entry of group) entry.reject(failure)
      }
      return undefined
    } finally {
      this.busySinceMs = undefined
    }
  }

  async close(): Promise<void> {
    const sql = this.#sql
    this.#sql = undefined
    if (sql !== undefined) await this.#options.close(sql)
  }

  /** PostgreSQL refuses one of these rows: each is tried alone, so that only the culprit's sender hears of it. */
  async #commitAlone(group: readonly Waiting[]): Promise<void> {
    const { clock } = this.#options
    for (const entry of group) {
      const leftMs = entry.sinceMs + ANSWER_MS_MAX - clock.monotonicMs()
      const { failure } =
        leftMs < COMMIT_MS_MIN
          ? { failure: new Failure('outage', 'the database was busy with a group that it refused') }
          : await this.#copy([entry], Math.min(COMMIT_MS_MAX, leftMs))
      if (failure === undefined) entry.resolve()
      else entry.reject(failure)
    }
  }

  async #copy(
    group: readonly Waiting[],
    withinMs = COMMIT_MS_MAX,
  ): Promise<{ failure?: Failure; sent: boolean }> {
    const { clock, onCommitted, onUnknown } = this.#options
    this.#sql ??= this.#options.open((notice) => {
      if (notice.severity === 'WARNING') this.#warning = notice.message ?? 'a warning without a message'
    })
    const startedMs = clock.monotonicMs()
    let sent = false
    const settled = new AbortController()
    try {
      const pieces = encodeRows(group.map((entry) => entry.row))
      const outcome = await Promise.race([
        copyIn(this.#sql, stageText, pieces, () => {
          sent = true
          // What came before, at the start of the session above all, says nothing about this commit.
          this.#warning = undefined
        }).then(() => 'committed' as const),
        clock.sleep(withinMs, settled.signal).then(() => 'late' as const),
      ])
      if (outcome === 'late') {
        throw new Failure('outage', `the database did not confirm a commit within ${Math.round(withinMs)} ms`)
      }
      if (this.#warning !== undefined) {
        throw new Failure('outage', `the commit gave a warning: ${this.#warning}`)
      }
      const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0)
      onCommitted?.({ rows: group.length, bytes, durationMs: clock.monotonicMs() - startedMs })
      return { sent }
    } catch (thrown) {
      const failure = classifyPostgresError(thrown)
      if (failure.kind !== 'data') {
        if (sent) onUnknown?.(group.length)
        // Nobody knows what the connection is in the middle of.
        await this.close()
      }
      return { failure, sent }
    } finally {
      // With a reason of its own it would make a DOMException for each group.
      settled.abort(null)
    }
  }
}
