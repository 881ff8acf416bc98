import type { Clock } from '../foundation/clock.ts'
import { Failure } from '../foundation/failure.ts'

export interface Deadline {
  clock: Clock
  timeoutMs: number
  /** Any of them ends the work early. */
  signals: readonly (AbortSignal | undefined)[]
}

/**
 * Runs `work` under a deadline. When the time is up or a signal aborts, the signal that `work` was given aborts too
 * and the caller hears at once, whether or not `work` ever settles: a call that hangs below us must not hang us.
 *
 * @throws Failure `outage` with the code `ETIMEDOUT` or `ABORT_ERR`; whatever `work` throws goes through as it is.
 */
export function withDeadline<T>(
  what: string,
  { clock, timeoutMs, signals }: Deadline,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const inner = new AbortController()
    const settled = new AbortController()
    const settle = () => {
      settled.abort()
      for (const signal of signals) signal?.removeEventListener('abort', onAbort)
    }
    const giveUp = (failure: Failure) => {
      settle()
      reject(failure)
      inner.abort(failure)
    }
    const onAbort = () => {
      const cause = signals.find((signal) => signal?.aborted)?.reason
      giveUp(new Failure('outage', `${what}: given up`, { code: 'ABORT_ERR', cause }))
    }
    for (const signal of signals) signal?.addEventListener('abort', onAbort)
    if (signals.some((signal) => signal?.aborted)) return onAbort()
    void clock.sleep(timeoutMs, settled.signal).then(() => {
      if (settled.signal.aborted) return
      giveUp(new Failure('outage', `${what}: not done within ${timeoutMs} ms`, { code: 'ETIMEDOUT' }))
    })
    work(inner.signal).then(
      (value) => {
        settle()
        resolve(value)
      },
      (thrown: unknown) => {
        settle()
        reject(thrown)
      },
    )
  })
}
