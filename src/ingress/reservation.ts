import type { ByteBudget } from '../foundation/byte-budget.ts'

/** The bytes of the in-flight budget that one request holds, given back together when its outcome is certain. */
export class Reservation {
  readonly #budget: ByteBudget
  #bytes = 0

  constructor(budget: ByteBudget) {
    this.#budget = budget
  }

  /** Takes `bytes` more, or takes nothing and answers false. */
  take(bytes: number): boolean {
    if (!this.#budget.tryTake(bytes)) return false
    this.#bytes += bytes
    return true
  }

  /** Gives back `bytes` of those that are held, and takes `others` instead; or changes nothing and answers false. */
  exchange(bytes: number, others: number): boolean {
    if (others > bytes) return this.take(others - bytes)
    this.#budget.giveBack(bytes - others)
    this.#bytes -= bytes - others
    return true
  }

  /** What could be taken now. */
  get freeBytes(): number {
    return this.#budget.freeBytes
  }

  /** Gives back all that is held. Calling it again gives back nothing. */
  release(): void {
    this.#budget.giveBack(this.#bytes)
    this.#bytes = 0
  }
}
