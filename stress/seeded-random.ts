/** Chance that can be repeated: the same seed gives the same values on every machine. */
export interface SeededRandom {
  /** From 0 up to and not including 1. */
  fraction(): number
  /** A whole number from `min` to `max`, both included. */
  between(min: number, max: number): number
  pick<T>(choices: readonly [T, ...T[]]): T
  /** True in this share of the calls. */
  chance(share: number): boolean
  bytes(length: number): Buffer
}

/** A generator of 32 bits of state (an additive counter with a multiplying mixer): for test data, not for secrets. */
export function seededRandom(seed: number): SeededRandom {
  let state = seed | 0
  const next = (): number => {
    state = (state + 0x9e3779b9) | 0
    let mixed = state
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b)
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
    return (mixed ^ (mixed >>> 16)) >>> 0
  }
  const fraction = () => next() / 0x1_0000_0000
  const between = (min: number, max: number) => min + Math.floor(fraction() * (max - min + 1))
  return {
    fraction,
    between,
    pick: (choices) => choices[between(0, choices.length - 1)] ?? choices[0],
    chance: (share) => fraction() < share,
    bytes(length) {
      const out = Buffer.alloc(length)
      for (let at = 0; at < length; at++) out[at] = next() & 0xff
      return out
    },
  }
}
