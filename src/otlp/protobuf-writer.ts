import { freeMemory } from '../foundation/memory.ts'
import { messageDepthMax } from './schema.ts'
import { varintLength, writeVarint } from './wire.ts'

/** From this many bytes on, a native copy is faster than a loop. */
const nativeCopyBytesMin = 48
/** Field numbers are below 32. */
const fieldsPerMessage = 32

// A request is written without a pause, so that one set of these serves all.
/** Where most requests are written; a larger one gets a buffer of its own. */
const scratch = Buffer.allocUnsafeSlow(1024 * 1024)
/** Where in the output each field of each open message starts and ends, by depth and field number. */
const fieldStarts = new Int32Array((messageDepthMax + 1) * fieldsPerMessage)
const fieldEnds = new Int32Array((messageDepthMax + 1) * fieldsPerMessage)
/** How many bytes the last length at each depth took: the next will probably take as many. */
const lengthBytes = new Uint8Array(messageDepthMax + 1).fill(1)
const doubles = new Float64Array(1)
const doubleBytes = new Uint8Array(doubles.buffer)

/**
 * Writes protobuf from the outside in, when the length of a message is known only at its end. Only one may be at work at
 * a time: from the first call to `finish` nothing must be awaited.
 */
export class ProtobufWriter {
  output = scratch
  end = 0
  readonly #mostBytes: number

  /** What does not fit in the first megabyte is written to a buffer of `mostBytes`, of which only what is written takes memory. */
  constructor(mostBytes: number) {
    this.#mostBytes = mostBytes
  }

  /** What was written. */
  finish(): Buffer {
    const written = this.output.subarray(0, this.end)
    return this.output === scratch ? Buffer.from(written) : written
  }

  /** Gives the memory back of what was written. */
  discard(): void {
    if (this.output !== scratch) freeMemory(this.output)
  }

  /** Marks where a field of the message that is open at `depth` starts. */
  fieldStarts(depth: number, number: number): void {
    fieldStarts[depth * fieldsPerMessage + number] = this.end
  }

  fieldEnds(depth: number, number: number): void {
    fieldEnds[depth * fieldsPerMessage + number] = this.end
  }

  /** Takes a marked field of an open message out again; `seen` has the bits of all that are marked there. */
  remove(depth: number, number: number, seen: number): void {
    const row = depth * fieldsPerMessage
    const start = fieldStarts[row + number] as number
    const length = (fieldEnds[row + number] as number) - start
    const stop = this.end
    this.end -= length
    if (start === this.end) return
    if (this.end - start < nativeCopyBytesMin) {
      const output = this.output
      for (let at = start + length; at < stop; at++) output[at - length] = output[at] as number
    } else this.output.copyWithin(start, start + length, stop)
    for (let left = seen; left !== 0; left &= left - 1) {
      const other = row + 31 - Math.clz32(left & -left)
      if ((fieldStarts[other] as number) <= start) continue
      fieldStarts[other] = (fieldStarts[other] as number) - length
      fieldEnds[other] = (fieldEnds[other] as number) - length
    }
  }

  /** Makes room for that many bytes. */
  need(bytes: number): void {
    if (this.end + bytes <= this.output.length) return
    const larger = Buffer.allocUnsafeSlow(Math.max(this.#mostBytes, this.output.length * 2, this.end + bytes))
    this.output.copy(larger, 0, 0, this.end)
    if (this.output !== scratch) freeMemory(this.output)
    this.output = larger
  }

  tag(tag: number): void {
    this.need(2)
    if (tag < 0x80) this.output[this.end++] = tag
    else this.end = writeVarint(this.output, this.end, tag)
  }

  /** Leaves room for the length of a message at this depth. Answers where what it counts starts. */
  open(depth: number): number {
    this.need(5)
    this.end += lengthBytes[depth] as number
    return this.end
  }

  /** Writes the length of what was written since `start` before it. */
  close(start: number, depth: number): void {
    const length = this.end - start
    const room = lengthBytes[depth] as number
    const taken = varintLength(length)
    if (taken !== room) {
      this.need(5)
      this.output.copyWithin(start - room + taken, start, this.end)
      this.end += taken - room
      lengthBytes[depth] = taken
    }
    writeVarint(this.output, start - room, length)
  }

  /** Four bytes. */
  fixed32(value: number): void {
    this.need(4)
    const output = this.output
    const end = this.end
    output[end] = value
    output[end + 1] = value >>> 8
    output[end + 2] = value >>> 16
    output[end + 3] = value >>> 24
    this.end = end + 4
  }

  /** A varint of at most ten bytes, from the halves of 64 bits. */
  varint64(high: number, low: number): void {
    this.need(10)
    const output = this.output
    let end = this.end
    while (high !== 0 || low >= 0x80) {
      output[end++] = (low & 0x7f) | 0x80
      low = ((low >>> 7) | (high << 25)) >>> 0
      high >>>= 7
    }
    output[end++] = low
    this.end = end
  }

  /** A length and as many bytes: those from `start` to `stop`. */
  text(bytes: Buffer, start: number, stop: number): void {
    const length = stop - start
    this.need(length + 5)
    const output = this.output
    let end = this.end
    if (length < 0x80) output[end++] = length
    else end = writeVarint(output, end, length)
    if (length < nativeCopyBytesMin) {
      for (let at = start; at < stop; at++) output[end++] = bytes[at] as number
    } else {
      bytes.copy(output, end, start, stop)
      end += length
    }
    this.end = end
  }

  /** Eight bytes. */
  double(value: number): void {
    this.need(8)
    doubles[0] = value
    const output = this.output
    let end = this.end
    // A loop, because a call out of JavaScript for eight bytes takes longer.
    for (let i = 0; i < 8; i++) output[end++] = doubleBytes[i] as number
    this.end = end
  }

  /** One byte: a number below 128, or a part of something larger. */
  byte(value: number): void {
    this.need(1)
    this.output[this.end++] = value
  }
}
