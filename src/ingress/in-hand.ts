import type { Clock } from '../foundation/clock.ts'
import { CLOSING_MS } from './listening.ts'
import type { Outcome } from './outcome.ts'

/** A client may send many requests without waiting for an answer, and each takes memory beside its bytes. */
const IN_HAND_MAX = 10_000
/** When a drain begins, an upload has so long to come whole; a stalled one would use up the grace of all that stops later. */
const DRAIN_UPLOAD_MS = 2_000
/** The whole of a drain. Nothing honest takes longer: every request is answered 8 s after it came. */
const DRAIN_MS_MAX = 8_000

/** What is told to a request that comes, or has not come whole, while its listener stops. */
export const shuttingDown: Outcome = { kind: 'shutting_down', message: 'shutting down' }
/** What is told to a request that comes when there are too many. */
export const tooMany: Outcome = { kind: 'no_room', message: 'too many requests are in flight' }

/** The requests that a listener has taken and not answered. */
export class InHand<Request> {
  readonly #requests = new Set<Request>()
  #onLast: (() => void) | undefined

  add(request: Request): void {
    this.#requests.add(request)
  }

  /** It is answered, or nobody waits for it. */
  done(request: Request): void {
    this.#requests.delete(request)
    if (this.#requests.size === 0) this.#onLast?.()
  }

  /** Whether there are more than a listener may have. */
  get overfull(): boolean {
    return this.#requests.size > IN_HAND_MAX
  }

  [Symbol.iterator](): IterableIterator<Request> {
    return this.#requests.values()
  }

  /**
   * Waits until all are answered; those that have not come whole after 2 s are handed to `breakOff`. Ends after 7 s, which
   * leaves a second to close, or when `giveUp` aborts. Nothing may be added from its call on.
   */
  async drain(clock: Clock, giveUp: AbortSignal, breakOff: (request: Request) => void): Promise<void> {
    const answered = new AbortController()
    this.#onLast = () => answered.abort()
    if (this.#requests.size === 0) answered.abort()
    const over = AbortSignal.any([giveUp, answered.signal])
    await clock.sleep(DRAIN_UPLOAD_MS, over)
    for (const request of this.#requests) breakOff(request)
    await clock.sleep(DRAIN_MS_MAX - DRAIN_UPLOAD_MS - CLOSING_MS, over)
  }
}
