import type { Clock } from '../foundation/clock.ts'
import { Periodic } from '../foundation/periodic.ts'
import type { Service } from '../foundation/service.ts'
import type { Backlog, CountedBacklog } from './count-backlog.ts'

export interface OverflowOptions {
  policy: 'reject' | 'drop' | 'sample'
  /** The share that `sample` keeps, 0 to 1. */
  sampleRate: number
  rowsMax: number
  bytesMax: number
  /** Counts the backlog in the database, up to so many rows. */
  count: (limit: number) => Promise<CountedBacklog>
  /** Told after each count. */
  onCounted?: (backlog: Backlog) => void
  /** Told when counting fails and when it works again; the last count stands until then. */
  onCountFailed?: (thrown: unknown) => void
  clock: Clock
  random: () => number
}

export type OverflowDecision =
  | { outcome: 'stage' }
  | { outcome: 'reject' }
  | { outcome: 'drop'; policy: 'drop' | 'sample' }

const COUNT_INTERVAL_MS = 100
/** Counting 10^6 rows takes 70 to 94 ms; the pause grows with it so that counting takes under 2 % of the server's time. */
const COUNT_TIME_SHARE = 0.02

/**
 * Decides what happens to a request when the queue is full, without asking the database for each.
 *
 * **Maintained invariant**: the estimate is what was counted last, plus what this process admitted since that count
 * began and did not see refused, plus what was on its way to its commit when that count began. So a process never
 * underestimates its own part; others' rows are seen at the next count. With n processes the limit can be passed by
 * at most (n − 1) times the headroom last read, plus the groups in flight.
 */
export class Overflow implements Service {
  readonly name = 'overflow'
  readonly #options: OverflowOptions
  readonly #counts: Periodic
  #counted: Backlog = { rows: 0, bytes: 0 }
  #carried: Backlog = { rows: 0, bytes: 0 }
  #since: Backlog = { rows: 0, bytes: 0 }
  #inFlight: Backlog = { rows: 0, bytes: 0 }
  #costMs = 0

  constructor(options: OverflowOptions) {
    this.#options = options
    this.#counts = new Periodic({
      clock: options.clock,
      pauseMs: () => Math.max(COUNT_INTERVAL_MS, this.#costMs / COUNT_TIME_SHARE - this.#costMs),
      work: () => this.#reconcile(),
    })
  }

  /** Counts once, then keeps counting. */
  async start(): Promise<void> {
    await this.#reconcile()
    this.#counts.start()
  }

  stop(): Promise<void> {
    return this.#counts.stop()
  }

  /** Rows and bytes that wait, as far as this process knows. */
  get backlog(): Backlog {
    return {
      rows: this.#counted.rows + this.#carried.rows + this.#since.rows,
      bytes: this.#counted.bytes + this.#carried.bytes + this.#since.bytes,
    }
  }

  /**
   * What to do with a request of so many payload bytes. After `stage`, the caller says `settled` exactly once.
   */
  decide(bytes: number): OverflowDecision {
    const { policy, sampleRate, rowsMax, bytesMax, random } = this.#options
    if (this.#fits(rowsMax, bytesMax, bytes)) return this.#admit(bytes)
    if (policy === 'reject') return { outcome: 'reject' }
    if (policy === 'drop') return { outcome: 'drop', policy }
    if (this.#fits(2 * rowsMax, 2 * bytesMax, bytes) && random() < sampleRate) return this.#admit(bytes)
    return { outcome: 'drop', policy }
  }

  /** The request admitted by `decide` was committed, or was not. */
  settled(bytes: number, committed: boolean): void {
    this.#inFlight = minus(this.#inFlight, bytes)
    if (!committed) this.#since = minus(this.#since, bytes)
  }

  #fits(rowsMax: number, bytesMax: number, bytes: number): boolean {
    const rows = this.#counted.rows + this.#carried.rows + this.#since.rows
    const waitingBytes = this.#counted.bytes + this.#carried.bytes + this.#since.bytes
    return rows < rowsMax && waitingBytes + bytes <= bytesMax
  }

  #admit(bytes: number): OverflowDecision {
    this.#since = plus(this.#since, bytes)
    this.#inFlight = plus(this.#inFlight, bytes)
    return { outcome: 'stage' }
  }

  async #reconcile(): Promise<void> {
    const { count, policy, rowsMax, onCounted, onCountFailed } = this.#options
    const before = this.#since
    const carried = this.#inFlight
    try {
      // `sample` keeps going up to twice the limit, so it has to see that far.
      const counted = await count((policy === 'sample' ? 2 * rowsMax : rowsMax) + 1)
      this.#counted = counted
      this.#costMs = counted.costMs
      this.#carried = carried
      this.#since = { rows: this.#since.rows - before.rows, bytes: this.#since.bytes - before.bytes }
      onCounted?.(counted)
    } catch (thrown) {
      // The last count stands: staging needs the same database and refuses by itself while it is away.
      onCountFailed?.(thrown)
    }
  }
}

function plus(backlog: Backlog, bytes: number): Backlog {
  return { rows: backlog.rows + 1, bytes: backlog.bytes + bytes }
}

function minus(backlog: Backlog, bytes: number): Backlog {
  return { rows: backlog.rows - 1, bytes: backlog.bytes - bytes }
}
