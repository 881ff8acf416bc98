import { randomInt } from 'node:crypto'

/** Most distinct trace ids that a summary keeps. */
export const traceHashesMax = 10_000

const slots = 32_768

// Ids are the sender's to choose: with multipliers that nobody can know, nobody can make them all meet in one slot.
const highMultiplier = randomInt(2 ** 31) * 2 + 1
const lowMultiplier = randomInt(2 ** 31) * 2 + 1

/**
 * The hash of a trace id for `trace_index.trace_hash`: the first eight bytes XOR the last eight, big-endian, as
 * a signed 64-bit number. `start` is where the 16 bytes of the id start.
 */
export function traceHash(bytes: Buffer, start: number): bigint {
  return BigInt.asIntN(64, bytes.readBigUInt64BE(start) ^ bytes.readBigUInt64BE(start + 8))
}

/**
 * Distinct trace hashes in order of appearance, at most `traceHashesMax`. Kept between requests: `clear` costs
 * nothing, because a slot counts only when it carries the number of the current round.
 */
export class TraceHashSet {
  readonly #hashes = new BigInt64Array(traceHashesMax)
  /** The same memory as pairs of low and high half (every platform of Node is little-endian). */
  readonly #halves = new Int32Array(this.#hashes.buffer)
  /** Index into `#hashes`, by hash. */
  readonly #slots = new Uint16Array(slots)
  readonly #rounds = new Int32Array(slots)
  #round = 0
  #size = 0
  #cut = false

  /** True when a hash was left out because there were too many. */
  get cut(): boolean {
    return this.#cut
  }

  clear(): void {
    if (this.#round === 0x7fffffff) {
      this.#rounds.fill(0)
      this.#round = 0
    }
    this.#round++
    this.#size = 0
    this.#cut = false
  }

  /** Adds the hash with these halves. The slots are at most a third full, so that a search is short. */
  add(high: number, low: number): void {
    const halves = this.#halves
    let slot = (Math.imul(high, highMultiplier) + Math.imul(low, lowMultiplier)) >>> 17
    while (this.#rounds[slot] === this.#round) {
      const index = (this.#slots[slot] as number) * 2
      if (halves[index] === low && halves[index + 1] === high) return
      slot = (slot + 1) & (slots - 1)
    }
    if (this.#size === traceHashesMax) {
      this.#cut = true
      return
    }
    this.#rounds[slot] = this.#round
    this.#slots[slot] = this.#size
    halves[this.#size * 2] = low
    halves[this.#size * 2 + 1] = high
    this.#size++
  }

  toArray(): BigInt64Array {
    return this.#hashes.slice(0, this.#size)
  }
}
