import type { Clock } from '../foundation/clock.ts'
import { Failure } from '../foundation/failure.ts'
import { classifyPostgresError } from './sqlstate.ts'

export interface DeadlinesOptions {
  /** How long each query may take. Infinity for as long as it likes. */
  patienceMs: number
  clock: Clock
  /** Called once a query was late, after it was rejected. */
  onLate: () => void
}

interface Waiting {
  readonly untilMs: number
  readonly giveUp: (failure: Failure) => void
}

/**
 * The queries that are under way and when each is given up. One timer serves all of them, since a timer for each costs
 * 25 µs; it goes to the time of the oldest query and, when nothing is under way then, is not set again.
 *
 * **Maintained invariant**: what `hold` returns is settled by then, or by `end`, whatever becomes of the query.
 */
export class Deadlines {
  readonly #options: DeadlinesOptions
  /** All wait equally long, so that they stand in the order of their time. */
  readonly #waiting = new Set<Waiting>()
  readonly #over = new AbortController()
  #isWatching = false

  constructor(options: DeadlinesOptions) {
    this.#options = options
  }

  /** What `query` answers. @throws Failure, classified; `outage` with the code ETIMEDOUT when it is late. */
  hold<T>(query: PromiseLike<T>): Promise<T> {
    const { patienceMs, clock } = this.#options
    return new Promise((resolve, reject) => {
      const waiting = { untilMs: clock.monotonicMs() + patienceMs, giveUp: reject }
      this.#waiting.add(waiting)
      query.then(
        (answer) => {
          this.#waiting.delete(waiting)
          resolve(answer)
        },
        (thrown) => {
          this.#waiting.delete(waiting)
          reject(classifyPostgresError(thrown))
        },
      )
      if (!this.#isWatching && patienceMs < Number.POSITIVE_INFINITY) void this.#watch()
    })
  }

  /** Rejects everything that is under way, and lets the timer go. */
  end(reason: Failure): void {
    for (const { giveUp } of this.#waiting) giveUp(reason)
    this.#waiting.clear()
    this.#over.abort()
  }

  async #watch(): Promise<void> {
    const { patienceMs, clock, onLate } = this.#options
    const { signal } = this.#over
    this.#isWatching = true
    for (let [oldest] = this.#waiting; oldest !== undefined && !signal.aborted; [oldest] = this.#waiting) {
      const leftMs = oldest.untilMs - clock.monotonicMs()
      if (leftMs > 0) {
        await clock.sleep(leftMs, signal)
        continue
      }
      this.#waiting.delete(oldest)
      const message = `the database does not answer: it said nothing for ${patienceMs} ms`
      oldest.giveUp(new Failure('outage', message, { code: 'ETIMEDOUT' }))
      onLate()
    }
    this.#isWatching = false
  }
}
