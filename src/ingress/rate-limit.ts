import type { Clock } from '../foundation/clock.ts'
import { invariant } from '../foundation/failure.ts'

/** What `RateLimit.take` answers; the seconds are whole and at least 1. */
export type Admission = { readonly ok: true } | { readonly ok: false; readonly retryAfterSeconds: number }

const admitted: Admission = { ok: true }

/**
 * A token bucket: it holds `burst` tokens, starts full, and gains `perSecond` tokens a second of the monotonic
 * clock, so that a change of the wall clock opens or closes nothing. Kept as the time at which it will be full
 * again, which refusals do not touch: a sum of fractions would refuse a client that waited exactly long enough.
 *
 * **Maintained invariant**: over any span of s seconds at most `burst + s * perSecond` requests are admitted.
 */
export class RateLimit {
  readonly #tokenMs: number
  /** How far in the future the bucket may become full when a token is taken. */
  readonly #spanMs: number
  readonly #clock: Clock
  #fullAtMs: number

  constructor(options: { perSecond: number; burst: number; clock: Clock }) {
    invariant(options.perSecond > 0, `a rate limit of ${options.perSecond} a second admits nothing`)
    invariant(options.burst >= 1, `a burst of ${options.burst} admits nothing`)
    this.#tokenMs = 1000 / options.perSecond
    this.#spanMs = (options.burst - 1) * this.#tokenMs
    this.#clock = options.clock
    this.#fullAtMs = options.clock.monotonicMs()
  }

  /** Takes one token, or answers in how many whole seconds there will be one again. */
  take(): Admission {
    const nowMs = this.#clock.monotonicMs()
    const waitMs = this.#fullAtMs - nowMs - this.#spanMs
    if (waitMs > 0) return { ok: false, retryAfterSeconds: Math.max(1, Math.ceil(waitMs / 1000)) }
    this.#fullAtMs = Math.max(this.#fullAtMs, nowMs) + this.#tokenMs
    return admitted
  }
}
