import { characterSize } from './utf8.ts'
import { fieldKinds, fieldOps, op, tagsPerMessage } from './walk-table.ts'
import { fieldEnd, varint, varintEnd, varintLength, writeVarint } from './wire.ts'

/** U+FFFD in UTF-8 is EF BF BD. */
const replacementBytes = 3

/**
 * A copy of a request in which every string is UTF-8: each maximal bad part becomes one U+FFFD, as the Encoding
 * standard's decoder does it, and every enclosing length is right. The rest stays byte for byte. `body` must have
 * passed the walk, which bounds the nesting; `kind` is the one its walk started with. The copy is at most three times
 * as long as `body`; four bytes for each message and string are held beside it.
 */
export function repairStrings(kind: number, body: Buffer): Buffer {
  const repair = new Repair(body)
  const length = repair.measure(kind, 0, body.length)
  return repair.write(kind, length)
}

/** Two passes over one body: the first finds the new length of each message and string, the second writes. */
class Repair {
  readonly #body: Buffer
  /** New lengths of messages and strings, in the order in which they begin. */
  #lengths = new Uint32Array(1024)
  #count = 0
  #next = 0
  #output = Buffer.alloc(0)
  #written = 0
  /** Up to where the body has been copied. */
  #copied = 0

  constructor(body: Buffer) {
    this.#body = body
  }

  measure(kind: number, start: number, end: number): number {
    const body = this.#body
    let length = end - start
    let at = start
    while (at < end) {
      const tag = varint(body, at)
      const lengthStart = varintEnd(body, at)
      at = fieldEnd(body, lengthStart, tag)
      const cell = cellOf(kind, tag)
      if (!isMessage(cell) && !isString(cell)) continue
      const valueStart = varintEnd(body, lengthStart)
      const index = this.#reserve()
      const renewed = isMessage(cell)
        ? this.measure(fieldKinds[cell] as number, valueStart, at)
        : repairedLength(body, valueStart, at)
      this.#lengths[index] = renewed
      // A length that stays as it was keeps its bytes, padded or not.
      const old = at - valueStart
      if (renewed !== old) length += renewed - old + varintLength(renewed) - (valueStart - lengthStart)
    }
    return length
  }

  write(kind: number, length: number): Buffer {
    this.#output = Buffer.allocUnsafeSlow(length)
    this.#write(kind, 0, this.#body.length)
    this.#copyTo(this.#body.length)
    return this.#output
  }

  #write(kind: number, start: number, end: number): void {
    const body = this.#body
    let at = start
    while (at < end) {
      const tag = varint(body, at)
      const lengthStart = varintEnd(body, at)
      at = fieldEnd(body, lengthStart, tag)
      const cell = cellOf(kind, tag)
      if (!isMessage(cell) && !isString(cell)) continue
      const valueStart = varintEnd(body, lengthStart)
      const renewed = this.#lengths[this.#next++] as number
      if (renewed !== at - valueStart) {
        this.#copyTo(lengthStart)
        this.#written = writeVarint(this.#output, this.#written, renewed)
        this.#copied = valueStart
      }
      if (isMessage(cell)) this.#write(fieldKinds[cell] as number, valueStart, at)
      else this.#writeString(valueStart, at)
    }
  }

  #writeString(start: number, end: number): void {
    let at = start
    while (at < end) {
      const size = characterSize(this.#body, at, end)
      if (size > 0) {
        at += size
        continue
      }
      this.#copyTo(at)
      this.#output[this.#written++] = 0xef
      this.#output[this.#written++] = 0xbf
      this.#output[this.#written++] = 0xbd
      at -= size
      this.#copied = at
    }
  }

  #copyTo(end: number): void {
    if (end === this.#copied) return
    this.#body.copy(this.#output, this.#written, this.#copied, end)
    this.#written += end - this.#copied
    this.#copied = end
  }

  #reserve(): number {
    if (this.#count === this.#lengths.length) {
      const longer = new Uint32Array(this.#lengths.length * 2)
      longer.set(this.#lengths)
      this.#lengths = longer
    }
    return this.#count++
  }
}

/** Where the table stands for a field; the first cell of a message, for a field 0, is that of an unknown one. */
function cellOf(kind: number, tag: number): number {
  return tag < tagsPerMessage ? kind * tagsPerMessage + tag : 0
}

function isMessage(cell: number): boolean {
  return fieldOps[cell] === op.message || fieldOps[cell] === op.item
}

function isString(cell: number): boolean {
  return (
    fieldOps[cell] === op.string || fieldOps[cell] === op.serviceKey || fieldOps[cell] === op.serviceValue
  )
}

function repairedLength(bytes: Buffer, start: number, end: number): number {
  let length = end - start
  let at = start
  while (at < end) {
    const size = characterSize(bytes, at, end)
    if (size > 0) {
      at += size
      continue
    }
    length += replacementBytes + size
    at -= size
  }
  return length
}
