/**
 * Things that end by themselves, or are ended when their time is over. One look at all of them every so often is cheaper
 * than a timer for each.
 */
export class Overdue<Item extends object> {
  readonly #itemsMax: number
  readonly #end: (item: Item) => void
  /** In the order in which they came. */
  readonly #untilMs = new Map<Item, number>()

  /** When there are more than `itemsMax` the oldest one is ended, whatever time it had. */
  constructor(itemsMax: number, end: (item: Item) => void) {
    this.#itemsMax = itemsMax
    this.#end = end
  }

  /** Begins to wait for `item`, until `untilMs` of the monotonic clock. */
  add(item: Item, untilMs: number): void {
    this.#untilMs.set(item, untilMs)
    if (this.#untilMs.size <= this.#itemsMax) return
    const [oldest] = this.#untilMs.keys()
    if (oldest !== undefined) this.#stop(oldest)
  }

  /** From now on `item` has all the time that it likes. */
  keep(item: Item): void {
    if (this.#untilMs.has(item)) this.#untilMs.set(item, Number.POSITIVE_INFINITY)
  }

  /** It has ended. */
  done(item: Item): void {
    this.#untilMs.delete(item)
  }

  /** Ends what is overdue at `nowMs`. */
  look(nowMs: number): void {
    for (const [item, untilMs] of this.#untilMs) if (nowMs >= untilMs) this.#stop(item)
  }

  #stop(item: Item): void {
    this.#untilMs.delete(item)
    this.#end(item)
  }
}
