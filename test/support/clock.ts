import type { Clock } from '../../src/foundation/clock.ts'

/** A clock that stands still until `advance` moves it. Whoever sleeps past its time is woken in order of time. */
export interface ManualClock extends Clock {
  /** Moves time on, and lets everything that was woken run until it waits again. */
  advance(ms: number): Promise<void>
  /** How many sleep at the moment. */
  readonly sleepers: number
}

const settled = () => new Promise<void>((resolve) => setImmediate(resolve))

export function manualClock(startWallMs = Date.UTC(2030, 0, 1)): ManualClock {
  let elapsedMs = 0
  const sleeping = new Set<{ untilMs: number; wake: () => void }>()

  function wakeAt(untilMs: number, action: () => void, signal?: AbortSignal): void {
    const sleeper = {
      untilMs,
      wake() {
        sleeping.delete(sleeper)
        signal?.removeEventListener('abort', sleeper.wake)
        action()
      },
    }
    sleeping.add(sleeper)
    signal?.addEventListener('abort', sleeper.wake)
  }

  return {
    wallMs: () => startWallMs + elapsedMs,
    monotonicMs: () => elapsedMs,
    sleep(ms, signal) {
      if (signal?.aborted) return Promise.resolve()
      return new Promise((resolve) => wakeAt(elapsedMs + ms, resolve, signal))
    },
    deadline(ms) {
      const controller = new AbortController()
      wakeAt(elapsedMs + ms, () => controller.abort(new DOMException('The deadline passed', 'TimeoutError')))
      return controller.signal
    },
    async advance(ms) {
      const endMs = elapsedMs + ms
      await settled()
      for (;;) {
        const next = [...sleeping]
          .filter(({ untilMs }) => untilMs <= endMs)
          .sort((a, b) => a.untilMs - b.untilMs)[0]
        if (next === undefined) break
        elapsedMs = Math.max(elapsedMs, next.untilMs)
        next.wake()
        await settled()
      }
      elapsedMs = endMs
    },
    get sleepers() {
      return sleeping.size
    },
  }
}
