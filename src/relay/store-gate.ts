import { type BackoffSettings, backoffMs } from '../foundation/backoff.ts'
import type { Clock } from '../foundation/clock.ts'

/**
 * Keeps the pollers from claiming batch after batch into a store that is away: after an outage nothing is claimed
 * for a while that doubles with each outage in a row. One success opens the gate.
 */
export class StoreGate {
  readonly #clock: Clock
  readonly #backoff: BackoffSettings
  #outages = 0
  #closedUntilMs = 0
  #lastSuccessMs = Number.NEGATIVE_INFINITY

  constructor(clock: Clock, backoff: BackoffSettings) {
    this.#clock = clock
    this.#backoff = backoff
  }

  succeeded(): void {
    this.#outages = 0
    this.#closedUntilMs = 0
    this.#lastSuccessMs = this.#clock.monotonicMs()
  }

  /** Batches that fail together count once. */
  failed(): void {
    const nowMs = this.#clock.monotonicMs()
    if (nowMs < this.#closedUntilMs) return
    this.#closedUntilMs = nowMs + backoffMs(this.#outages, this.#backoff)
    this.#outages++
  }

  /** Milliseconds until something may be claimed; 0 when the gate is open. */
  get closedForMs(): number {
    return Math.max(0, this.#closedUntilMs - this.#clock.monotonicMs())
  }

  get isOpen(): boolean {
    return this.#outages === 0
  }

  succeededWithin(ms: number): boolean {
    return this.#clock.monotonicMs() - this.#lastSuccessMs <= ms
  }
}
