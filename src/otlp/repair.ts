import { freeMemory } from '../foundation/memory.ts'
import { characterSize } from './utf8.ts'
import { fieldEnd, varint, varintEnd, varintLength, writeVarint } from './wire.ts'

/** U+FFFD in UTF-8. */
const replacement = [0xef, 0xbf, 0xbd] as const

/** No buffer that is walked is as long. */
const placeMax = 2 ** 31 - 1

/** From this many bytes on, a native copy is faster than a loop. */
const nativeCopyBytesMin = 64

/** The places of the fields of a request that hold bad strings: where their tags start, in rising order. */
export class BadStrings {
  #places = new Int32Array(64)
  count = 0

  /** `known`, or new ones where there are none yet, with this one. */
  static with(known: BadStrings | undefined, fieldAt: number): BadStrings {
    const all = known ?? new BadStrings()
    all.#add(fieldAt)
    return all
  }

  #add(fieldAt: number): void {
    if (this.count === this.#places.length) {
      const longer = new Int32Array(this.#places.length * 2)
      longer.set(this.#places)
      freeMemory(new Uint8Array(this.#places.buffer))
      this.#places = longer
    }
    this.#places[this.count++] = fieldAt
  }

  /** Forgets them: nobody asks any more. */
  free(): void {
    freeMemory(new Uint8Array(this.#places.buffer))
  }

  /** Of one past the last it is larger than every place in a body. */
  at(index: number): number {
    return index < this.count ? (this.#places[index] as number) : placeMax
  }
}

/**
 * A copy of a request in which the strings of the fields in `bad` are UTF-8: each maximal bad part becomes one U+FFFD, as
 * the Encoding standard's decoder does it, and every enclosing length is right. The rest stays byte for byte. `body`
 * must have passed the walk. The copy is at most three times as long as `body`; eight bytes for each bad string and
 * each message around one are held beside it.
 *
 * Costs at most 15 ms for each megabyte of the body: the worst is a string of one bad byte in each of many messages.
 */
export function repairStrings(body: Buffer, bad: BadStrings): Buffer {
  const repair = new Repair(body, bad)
  const repaired = repair.write(repair.measure())
  repair.free()
  bad.free()
  return repaired
}

/**
 * Two passes over what has to change: the first finds the new length of each bad string and of each message around
 * one, the second writes. Messages without a bad string are stepped over whole.
 */
class Repair {
  readonly #body: Buffer
  readonly #bad: BadStrings
  /** In pairs, in the order in which they begin: where a length stands, and what it has to be. */
  #changes = new Int32Array(64)
  #end = 0
  #output = Buffer.alloc(0)
  #written = 0
  /** Up to where the body has been copied. */
  #copied = 0

  constructor(body: Buffer, bad: BadStrings) {
    this.#body = body
    this.#bad = bad
  }

  /** Answers the length of the repaired body. */
  measure(): number {
    const body = this.#body
    const bad = this.#bad
    // Of each message that is open: where it ends, its pair of changes, and by how much it has grown.
    const ends: number[] = []
    const changes: number[] = []
    const growths: number[] = []
    let end = body.length
    let growth = 0
    let index = 0
    let next = bad.at(index)
    let at = 0
    for (;;) {
      while (next >= end) {
        const change = changes.pop()
        if (change === undefined) return body.length + growth
        const inner = this.#setLength(change, end, growth)
        at = end
        end = ends.pop() as number
        growth = (growths.pop() as number) + inner
      }

      const fieldAt = at
      let tag = body[at++] as number
      if (tag >= 0x80) {
        tag = varint(body, fieldAt)
        at = varintEnd(body, fieldAt)
      }
      if ((tag & 7) !== 2) {
        at = fieldEnd(body, at, tag)
        continue
      }
      const lengthAt = at
      let length = body[at++] as number
      if (length >= 0x80) {
        length = varint(body, lengthAt)
        at = varintEnd(body, lengthAt)
      }
      const stop = at + length
      if (next >= stop) {
        at = stop
        continue
      }
      const change = this.#change(lengthAt)
      if (fieldAt === next) {
        growth += this.#setLength(change, stop, repairedGrowth(body, at, stop))
        at = stop
        next = bad.at(++index)
      } else {
        ends.push(end)
        changes.push(change)
        growths.push(growth)
        end = stop
        growth = 0
      }
    }
  }

  /** Begins a change of the length that stands at `lengthAt`. */
  #change(lengthAt: number): number {
    if (this.#end === this.#changes.length) {
      const longer = new Int32Array(this.#changes.length * 2)
      longer.set(this.#changes)
      freeMemory(new Uint8Array(this.#changes.buffer))
      this.#changes = longer
    }
    const change = this.#end
    this.#changes[change] = lengthAt
    this.#end += 2
    return change
  }

  /** Ends it: what it counts ends at `end` and grows by `growth`. Answers by how much it grows with its length. */
  #setLength(change: number, end: number, growth: number): number {
    const lengthAt = this.#changes[change] as number
    const valueStart = varintEnd(this.#body, lengthAt)
    const renewed = end - valueStart + growth
    this.#changes[change + 1] = renewed
    // A length that stays as it was keeps its bytes, padded or not.
    return growth === 0 ? 0 : growth + varintLength(renewed) - (valueStart - lengthAt)
  }

  free(): void {
    freeMemory(new Uint8Array(this.#changes.buffer))
  }

  write(length: number): Buffer {
    const body = this.#body
    const bad = this.#bad
    this.#output = Buffer.allocUnsafeSlow(length)
    let index = 0
    let next = bad.at(index)
    for (let change = 0; change < this.#end; change += 2) {
      const lengthAt = this.#changes[change] as number
      const renewed = this.#changes[change + 1] as number
      const valueStart = varintEnd(body, lengthAt)
      const old = varint(body, lengthAt)
      if (renewed !== old) {
        this.#copyTo(lengthAt)
        this.#written = writeVarint(this.#output, this.#written, renewed)
        this.#copied = valueStart
      }
      if (varintEnd(body, next) === lengthAt) {
        this.#copyTo(valueStart)
        this.#writeString(valueStart, valueStart + old)
        next = bad.at(++index)
      }
    }
    this.#copyTo(body.length)
    return this.#output
  }

  #writeString(start: number, end: number): void {
    const body = this.#body
    const output = this.#output
    let written = this.#written
    let at = start
    while (at < end) {
      let size = characterSize(body, at, end)
      if (size < 0) {
        output[written] = replacement[0]
        output[written + 1] = replacement[1]
        output[written + 2] = replacement[2]
        written += 3
        at -= size
      } else for (; size > 0; size--) output[written++] = body[at++] as number
    }
    this.#written = written
    this.#copied = end
  }

  #copyTo(end: number): void {
    const start = this.#copied
    this.#copied = end
    if (end - start >= nativeCopyBytesMin) {
      this.#written += this.#body.copy(this.#output, this.#written, start, end)
    } else {
      for (let at = start; at < end; at++) this.#output[this.#written++] = this.#body[at] as number
    }
  }
}

/** By how many bytes a string grows when it is repaired; it may shrink. */
function repairedGrowth(bytes: Buffer, start: number, end: number): number {
  let growth = 0
  let at = start
  while (at < end) {
    const size = characterSize(bytes, at, end)
    if (size > 0) {
      at += size
      continue
    }
    growth += replacement.length + size
    at -= size
  }
  return growth
}
