import type { Clock } from '../foundation/clock.ts'

/** A request may be staged with a lower id than one that was claimed already, for it was numbered before its commit. */
const LATE_MS = 1_000
/** How often all is looked at, and which share of the time that may take; the claim behind it may take as much. */
const WHOLE_LOOK_MS = 1_000
const WHOLE_LOOK_SHARE = 0.01

/**
 * From which id on pending rows are looked for. Below it lie the rows that are done with. As long as another session holds a
 * snapshot of before, PostgreSQL can clean none of them out of the index of pending rows, and whoever looks from the start
 * reads every one: after ten minutes at 3,000 requests a second two million of them, for each batch.
 *
 * What is pending below the mark all the same, because its commit was late or because it was given back, is found by a look
 * from the start once a second, or more seldom when that look takes long: look and claim together may use 2 % of the time.
 */
export class LowWaterMark {
  readonly #clock: Clock
  readonly #wholeLookShare: number
  /** What was passed within the last second, the oldest first. */
  #recent: { firstId: bigint; atMs: number }[] = []
  #mark = 0n
  #wholeLookDueMs = Number.NEGATIVE_INFINITY
  /** Where the look began that is going on, or the last one. */
  #from = 0n

  /** @param wholeLookShare the share of the time that looks from the start may take */
  constructor(clock: Clock, wholeLookShare = WHOLE_LOOK_SHARE) {
    this.#clock = clock
    this.#wholeLookShare = wholeLookShare
  }

  /** The id that the rows of the last look began with; a claim must not see fewer. */
  get from(): bigint {
    return this.#from
  }

  /** Does a look, from the mark on or from the start. */
  async look<T>(work: (from: bigint) => Promise<T>): Promise<T> {
    const startedMs = this.#clock.monotonicMs()
    const isWhole = startedMs >= this.#wholeLookDueMs
    this.#from = isWhole ? 0n : this.#mark
    try {
      return await work(this.#from)
    } finally {
      // Also after a failure: a look that takes longer than a statement may would be tried for ever.
      if (isWhole) {
        const nowMs = this.#clock.monotonicMs()
        this.#wholeLookDueMs = nowMs + Math.max(WHOLE_LOOK_MS, (nowMs - startedMs) / this.#wholeLookShare)
      }
    }
  }

  /** Below this id nothing was pending: a batch was claimed that begins there, or a look has found nothing before it. */
  passed(firstId: bigint): void {
    const nowMs = this.#clock.monotonicMs()
    if (firstId < this.#mark) {
      // Where one was left behind there may be thousands: they come next, and not one batch a second.
      this.#mark = firstId
      this.#recent = []
    }
    this.#recent.push({ firstId, atMs: nowMs })
    while (this.#recent[0] !== undefined && this.#recent[0].atMs <= nowMs - LATE_MS) {
      const { firstId: passed } = this.#recent.shift() ?? { firstId }
      if (passed > this.#mark) this.#mark = passed
    }
  }
}
