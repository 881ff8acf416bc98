import { invariant } from '../foundation/failure.ts'
import type { HeldBatch } from './held-batch.ts'

/**
 * Claimed batches in memory, from the claim until they are settled.
 *
 * **Maintained invariant**: rows and bytes of all batches held, waiting or being written, are counted against the
 * bounds. A single batch may pass them, and only when nothing else is held.
 */
export class BatchBuffer {
  readonly #rowsMax: number
  readonly #bytesMax: number
  readonly #waiting: HeldBatch[] = []
  readonly #held = new Set<HeldBatch>()
  #rows = 0
  #bytes = 0
  #takers: ((held: HeldBatch | undefined) => void)[] = []
  #roomFreed: (() => void)[] = []
  #closed = false

  constructor(bounds: { rowsMax: number; bytesMax: number }) {
    this.#rowsMax = bounds.rowsMax
    this.#bytesMax = bounds.bytesMax
  }

  get rows(): number {
    return this.#rows
  }

  get bytes(): number {
    return this.#bytes
  }

  get held(): ReadonlySet<HeldBatch> {
    return this.#held
  }

  get isEmpty(): boolean {
    return this.#held.size === 0
  }

  /** Is there room for a whole batch of so many rows? */
  hasRoomFor(rows: number): boolean {
    return this.isEmpty || (this.#rows + rows <= this.#rowsMax && this.#bytes < this.#bytesMax)
  }

  get freeBytes(): number {
    return Math.max(0, this.#bytesMax - this.#bytes)
  }

  get freeRows(): number {
    return Math.max(0, this.#rowsMax - this.#rows)
  }

  add(held: HeldBatch): void {
    this.#held.add(held)
    this.#rows += held.batch.rows.length
    this.#bytes += held.batch.bytes
    const taker = this.#takers.shift()
    if (taker === undefined) this.#waiting.push(held)
    else taker(held)
  }

  /** The batch that waited longest, as soon as there is one; undefined once the buffer is closed. */
  take(): Promise<HeldBatch | undefined> {
    if (this.#closed) return Promise.resolve(undefined)
    const held = this.#waiting.shift()
    if (held !== undefined) return Promise.resolve(held)
    return new Promise((resolve) => this.#takers.push(resolve))
  }

  /** The batch is settled or forgotten: its room is free again. */
  done(held: HeldBatch): void {
    invariant(this.#held.delete(held), `batch ${held.batch.batchId} left the buffer twice`)
    this.#rows -= held.batch.rows.length
    this.#bytes -= held.batch.bytes
    const waiters = this.#roomFreed
    this.#roomFreed = []
    for (const wake of waiters) wake()
  }

  /** Resolves when room was freed, or when `signal` aborts. */
  roomFreed(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const wake = () => {
        signal.removeEventListener('abort', wake)
        resolve()
      }
      signal.addEventListener('abort', wake, { once: true })
      this.#roomFreed.push(wake)
    })
  }

  /** Hands out nothing more. Answers the batches that nobody has begun to write; they stay counted until `done`. */
  close(): HeldBatch[] {
    this.#closed = true
    const takers = this.#takers
    this.#takers = []
    for (const taker of takers) taker(undefined)
    return this.#waiting.splice(0)
  }
}
