import { allocateLarge, freeMemory } from '../foundation/memory.ts'
import type { Reservation } from './reservation.ts'

/** Buffers double from here. One read of a socket brings at most this much, so most bodies come whole. */
const FIRST_GROWTH_BYTES = 64 * 1024
const nothing = Buffer.alloc(0)

/**
 * A body as it comes, holding in memory what the reservation could take and no more. One that comes in one piece is
 * not copied; a larger one is gathered in a buffer that doubles, up to `mostBytes`.
 */
export class BodyBuffer {
  readonly #reservation: Reservation
  #body: Buffer = nothing
  #usedBytes = 0
  /** Whether the memory is of this body alone; a piece as it came may be followed by what others wait for. */
  #isOurs = false
  /** How large the body can become, as far as is known; may be lowered when more is. */
  mostBytes: number

  constructor(reservation: Reservation, mostBytes: number) {
    this.#reservation = reservation
    this.mostBytes = mostBytes
  }

  get length(): number {
    return this.#usedBytes
  }

  /** What has come so far. */
  get bytes(): Buffer {
    return this.#usedBytes === this.#body.length ? this.#body : this.#body.subarray(0, this.#usedBytes)
  }

  /** Forgets what has come: nobody wants it. */
  discard(): void {
    freeMemory(this.#body)
    this.#body = nothing
    this.#usedBytes = 0
    this.#isOurs = false
  }

  /** Takes a further piece; false when there is no room for it in the budget. */
  add(chunk: Buffer): boolean {
    const neededBytes = this.#usedBytes + chunk.length
    if (this.#usedBytes === 0) {
      if (!this.#reservation.take(chunk.length)) return false
      this.#body = 2 * chunk.length < chunk.buffer.byteLength ? copyOf(chunk) : chunk
    } else {
      if (neededBytes > this.#body.length) {
        const doubledBytes = Math.max(2 * this.#body.length, FIRST_GROWTH_BYTES)
        const grownBytes = Math.max(neededBytes, Math.min(this.mostBytes, doubledBytes))
        if (!this.#reservation.take(grownBytes - this.#body.length)) return false
        this.#grow(grownBytes)
      }
      chunk.copy(this.#body, this.#usedBytes)
      freeMemory(chunk)
    }
    this.#usedBytes = neededBytes
    return true
  }

  #grow(bytes: number): void {
    const body = this.#body
    if (this.#isOurs && bytes <= body.buffer.byteLength) {
      this.#body = Buffer.from(body.buffer, 0, bytes)
      return
    }
    const grown = allocateLarge(bytes)
    body.copy(grown, 0, 0, this.#usedBytes)
    freeMemory(body)
    this.#body = grown
    this.#isOurs = true
  }
}

/** A short piece would keep the whole of the read of the socket that it came with. */
function copyOf(chunk: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(chunk.length)
  chunk.copy(copy)
  return copy
}
