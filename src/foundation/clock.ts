/**
 * Time, passed in so that tests move it. Three questions, three authorities: lease expiry is PostgreSQL's
 * `clock_timestamp()`, elapsed time is `monotonicMs`, and `wallMs` only labels things.
 */
export interface Clock {
  /** Milliseconds since 1970-01-01 UTC. For labels; never subtract two of them. */
  wallMs(): number
  /** Milliseconds since an arbitrary start, never going back. */
  monotonicMs(): number
  /** Resolves after `ms`, or at once when `signal` aborts; it never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
  /** Aborts after `ms`. The timer does not keep the process alive. */
  deadline(ms: number): AbortSignal
}

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep(ms, signal) {
    if (signal?.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', done)
        resolve()
      }
      const timer = setTimeout(done, ms)
      signal?.addEventListener('abort', done)
    })
  },
  deadline: (ms) => AbortSignal.timeout(ms),
}
