import { type BackoffSettings, backoffMs } from '../foundation/backoff.ts'
import type { Clock } from '../foundation/clock.ts'

/**
 * Keeps the pollers from claiming batch after batch into a store that is away: after an outage nothing is claimed
 * for a while that doubles with each outage in a row; then a single batch goes first. One success opens the gate.
 */
export class StoreGate {
  readonly #clock: Clock
  readonly #backoff: BackoffSettings
  #outages = 0
  #closedUntilMs = 0
  #lastSuccessMs = Number.NEGATIVE_INFINITY
  #waiting = new AbortController()

  constructor(clock: Clock, backoff: BackoffSettings) {
    this.#clock = clock
    this.#backoff = backoff
  }

  /** The store took an object. */
  succeeded(): void {
    this.#outages = 0
    this.#closedUntilMs = 0
    this.#lastSuccessMs = this.#clock.monotonicMs()
    this.#waiting.abort()
    this.#waiting = new AbortController()
  }

  /** The store is away. Batches that fail together count once. */
  failed(): void {
    const nowMs = this.#clock.monotonicMs()
    if (nowMs < this.#closedUntilMs) return
    this.#closedUntilMs = nowMs + backoffMs(this.#outages, this.#backoff)
    this.#outages++
  }

  /** True until an outage, and again after the next success. While it is false, one batch at a time goes first. */
  get isOpen(): boolean {
    return this.#outages === 0
  }

  /** Resolves when something may be claimed again: after the wait, at the next success, or when `stopping` aborts. */
  async wait(stopping: AbortSignal): Promise<void> {
    const leftMs = this.#closedUntilMs - this.#clock.monotonicMs()
    if (leftMs > 0) await this.#clock.sleep(leftMs, AbortSignal.any([stopping, this.#waiting.signal]))
  }

  succeededWithin(ms: number): boolean {
    return this.#clock.monotonicMs() - this.#lastSuccessMs <= ms
  }
}
