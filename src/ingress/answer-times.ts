import type { Clock } from '../foundation/clock.ts'

const ANSWERS_MAX = 256
const WINDOW_MS = 10_000
/** One slow request alone says more about itself than about the process. */
const ANSWERS_MIN = 10

/**
 * How long requests take, from the moment that their body is whole until their outcome is certain: a sender that is
 * slow to send says nothing about us. Kept of the last 256 answers of the last 10 s.
 */
export class AnswerTimes {
  readonly #clock: Clock
  readonly #tookMs = new Float64Array(ANSWERS_MAX)
  readonly #atMs = new Float64Array(ANSWERS_MAX).fill(Number.NEGATIVE_INFINITY)
  #next = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  record(tookMs: number): void {
    this.#tookMs[this.#next] = tookMs
    this.#atMs[this.#next] = this.#clock.monotonicMs()
    this.#next = (this.#next + 1) % ANSWERS_MAX
  }

  /**
   * Half of them took at least so long; 0 when there are fewer than 10. It is the median because a few requests that
   * take long to read must not have others refused.
   */
  get medianSeconds(): number {
    const sinceMs = this.#clock.monotonicMs() - WINDOW_MS
    const recent = this.#tookMs.filter((_, place) => (this.#atMs[place] ?? 0) >= sinceMs).sort()
    if (recent.length < ANSWERS_MIN) return 0
    return (recent[recent.length >> 1] ?? 0) / 1000
  }
}
