import { invariant } from './failure.ts'

/**
 * A bound on bytes held at one stage. Whoever takes bytes gives exactly those back.
 *
 * **Maintained invariant**: `0 <= usedBytes <= limitBytes`.
 */
export class ByteBudget {
  readonly limitBytes: number
  #usedBytes = 0

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes
  }

  get usedBytes(): number {
    return this.#usedBytes
  }

  get freeBytes(): number {
    return this.limitBytes - this.#usedBytes
  }

  /** Takes `bytes` if they fit, else takes nothing and answers false. */
  tryTake(bytes: number): boolean {
    invariant(bytes >= 0, `a budget was asked for ${bytes} bytes`)
    if (this.#usedBytes + bytes > this.limitBytes) return false
    this.#usedBytes += bytes
    return true
  }

  giveBack(bytes: number): void {
    invariant(
      bytes >= 0 && bytes <= this.#usedBytes,
      `${bytes} bytes given back of ${this.#usedBytes} in use`,
    )
    this.#usedBytes -= bytes
  }
}
