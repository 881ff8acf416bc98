/** `random` answers a number in [0, 1). */
export interface BackoffSettings {
  baseMs: number
  maxMs: number
  random: () => number
}

/**
 * How long to wait before try number `failures + 1`: doubling from `baseMs`, capped at `maxMs`, and jittered
 * over the upper half so that workers that failed together do not come back together.
 */
export function backoffMs(failures: number, { baseMs, maxMs, random }: BackoffSettings): number {
  const ceilingMs = Math.min(maxMs, baseMs * 2 ** Math.min(failures, 30))
  return Math.round(ceilingMs * (0.5 + random() / 2))
}
