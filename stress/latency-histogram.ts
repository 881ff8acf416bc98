const subBucketBits = 7
const subBuckets = 1 << subBucketBits
/** 2^32 µs is over an hour. */
const powersMax = 32 - subBucketBits + 1

/**
 * Counts of latencies in whole microseconds, in buckets that are linear within each power of two: any quantile is
 * exact to below 1 % however long the tail, in constant memory.
 */
export class LatencyHistogram {
  readonly #counts = new Float64Array(powersMax * subBuckets)
  #total = 0
  #max = 0

  get total(): number {
    return this.#total
  }

  record(microseconds: number): void {
    const value = Math.min(0xffff_ffff, Math.max(0, Math.round(microseconds)))
    const place = placeOf(value)
    this.#counts[place] = (this.#counts[place] ?? 0) + 1
    this.#total++
    if (value > this.#max) this.#max = value
  }

  /** The latency that this share of all stayed at or below, in microseconds; 0 when nothing was recorded. */
  quantile(share: number): number {
    const wanted = Math.max(1, Math.ceil(share * this.#total))
    let seen = 0
    for (const [place, count] of this.#counts.entries()) {
      seen += count
      if (count > 0 && seen >= wanted) return Math.min(this.#max, highestOf(place))
    }
    return this.#max
  }
}

/** Values below 128 have a bucket each; each power of two above has 64 buckets (the upper half of 128). */
function placeOf(value: number): number {
  const shift = Math.max(0, 32 - Math.clz32(value) - subBucketBits)
  return shift * (subBuckets / 2) + (value >>> shift)
}

function highestOf(place: number): number {
  if (place < subBuckets) return place
  const shift = Math.floor(place / (subBuckets / 2)) - 1
  const mantissa = place - shift * (subBuckets / 2)
  return (mantissa + 1) * 2 ** shift - 1
}
