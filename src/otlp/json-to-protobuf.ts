import { isUtf8 } from 'node:buffer'
import { OtlpError, quoted, shortPath } from './error.ts'
import { type Integer, readInteger } from './integer.ts'
import { type JsonField, type JsonMessage, jsonRequests, nameHash, nameHashStep } from './json-table.ts'
import { messageDepthMax, type ScalarKind } from './schema.ts'
import type { Signal } from './signal.ts'
import { varintLength, writeVarint } from './wire.ts'

/** What a value of an unknown field may nest. */
const skippedDepthMax = 1000
/** From this many bytes on, a native copy is faster than a loop. */
const nativeCopyBytesMin = 48
/** Field numbers are below 32. */
const fieldsPerMessage = 32

const quote = 0x22
const backslash = 0x5c
const comma = 0x2c
const colon = 0x3a
const openBrace = 0x7b
const closeBrace = 0x7d
const openBracket = 0x5b
const closeBracket = 0x5d

// A conversion never yields, so that one set of these serves all.
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
 * Turns an export request of OTLP JSON into the same request in protobuf (OTLP, "JSON Protobuf Encoding"; Protocol
 * Buffers, "ProtoJSON Format"):
 *
 * - 64-bit numbers as strings or numbers, exactly: `1e3` and `1.0` are whole numbers, `"+1"`, `" 1"` and `""` are none.
 * - Trace and span ids in hex of either case, or empty; other bytes in base64, standard or URL-safe, padded or not.
 * - Enums by number or name. Field names in lowerCamelCase or as in the .proto file. Unknown fields are ignored.
 * - `null` is the same as absence; in a list only a value of an array may be null, and is an empty one.
 * - Of a name that comes twice the last counts. Two fields of a oneof are an error.
 * - Half a surrogate pair becomes U+FFFD.
 *
 * The parser writes as it reads, without a tree: about 120 MB/s of the spans of an SDK, where `JSON.parse` alone,
 * which loses digits of 64-bit numbers, reaches 170.
 *
 * @throws {OtlpError} naming the field, for everything else, an object without any field of the request included.
 */
export function protobufFromJson(signal: Signal, body: Buffer): Buffer {
  if (!isUtf8(body)) throw new OtlpError('the request is not UTF-8')
  return new Conversion(body).request(jsonRequests[signal])
}

class Conversion {
  readonly #source: Buffer
  #at = 0
  #output = scratch
  #end = 0

  /** The text that `#text` found last: between two places in the source, or where it had escapes, elsewhere. */
  #textBytes: Buffer
  #textStart = 0
  #textEnd = 0

  /** The fields that are being read, from the outside in, and the index in the list for those that are lists. */
  readonly #fields: JsonField[] = []
  readonly #indexes: number[] = []
  readonly #integer: Integer = { negative: false, high: 0, low: 0 }

  constructor(source: Buffer) {
    this.#source = source
    this.#textBytes = source
  }

  request(message: JsonMessage): Buffer {
    this.#space()
    if (this.#source[this.#at] !== openBrace) throw this.#unexpected('an object')
    const known = this.#message(message, 0)
    this.#space()
    if (this.#at < this.#source.length) throw this.#unexpected('the end')
    if (!known) throw new OtlpError('the request has none of the fields of its signal')
    const result = Buffer.from(this.#output.subarray(0, this.#end))
    return result
  }

  /** Reads an object into the output. Answers whether it was empty or had a field of the message. */
  #message(message: JsonMessage, depth: number): boolean {
    const source = this.#source
    this.#at++
    this.#space()
    if (source[this.#at] === closeBrace) {
      this.#at++
      return true
    }
    let known = false
    let seen = 0
    for (;;) {
      const target = this.#key(message)
      this.#space()
      if (source[this.#at] !== colon) throw this.#unexpected('a colon')
      this.#at++
      this.#space()
      if (target === undefined) this.#skip()
      else {
        known = true
        seen = this.#field(target, depth, seen)
      }
      this.#space()
      const next = source[this.#at]
      if (next === comma) {
        this.#at++
        this.#space()
      } else if (next === closeBrace) {
        this.#at++
        return known
      } else throw this.#unexpected('a comma or the end of the object')
    }
  }

  /** Reads the value of a field. Answers `seen`, the bits of the fields that the message has, with this one. */
  #field(target: JsonField, depth: number, seen: number): number {
    const { field } = target
    const bit = 1 << field.number
    if (seen & bit) {
      this.#remove(depth, field.number, seen)
      seen &= ~bit
    }
    if (this.#source[this.#at] === 0x6e) {
      this.#literal('null')
      return seen
    }
    this.#fields[depth] = target
    this.#indexes[depth] = -1
    if (seen & target.rivals) {
      throw this.#wrong(depth, `stands beside another field of which only one may be set (${field.oneof})`)
    }
    const place = depth * fieldsPerMessage + field.number
    fieldStarts[place] = this.#end
    if (field.repeated) this.#list(target, depth)
    else this.#value(target, depth)
    fieldEnds[place] = this.#end
    return seen | bit
  }

  /** Takes what an earlier field of the same name wrote out of the output again. */
  #remove(depth: number, number: number, seen: number): void {
    const row = depth * fieldsPerMessage
    const start = fieldStarts[row + number] as number
    const length = (fieldEnds[row + number] as number) - start
    this.#output.copyWithin(start, start + length, this.#end)
    this.#end -= length
    for (let other = 1; other < fieldsPerMessage; other++) {
      if ((seen & (1 << other)) === 0 || (fieldStarts[row + other] as number) <= start) continue
      fieldStarts[row + other] = (fieldStarts[row + other] as number) - length
      fieldEnds[row + other] = (fieldEnds[row + other] as number) - length
    }
  }

  #list(target: JsonField, depth: number): void {
    const source = this.#source
    if (source[this.#at] !== openBracket)
      throw this.#wrong(depth, `is ${this.#valueText()}; a list belongs here`)
    this.#at++
    this.#space()
    if (source[this.#at] === closeBracket) {
      this.#at++
      return
    }
    let packedStart = 0
    if (target.packed) {
      this.#tag(target.tag)
      packedStart = this.#open(depth)
    }
    for (let index = 0; ; index++) {
      this.#indexes[depth] = index
      if (source[this.#at] === 0x6e) {
        if (target.message?.name !== 'AnyValue') throw this.#wrong(depth, 'is null, which no list may hold')
        this.#literal('null')
        this.#tag(target.tag)
        this.#need(1)
        this.#output[this.#end++] = 0
      } else this.#value(target, depth)
      this.#space()
      const next = source[this.#at]
      if (next === comma) {
        this.#at++
        this.#space()
      } else if (next === closeBracket) {
        this.#at++
        break
      } else throw this.#unexpected('a comma or the end of the list')
    }
    if (target.packed) this.#close(packedStart, depth)
  }

  #value(target: JsonField, depth: number): void {
    if (!target.packed) this.#tag(target.tag)
    const { field, message } = target
    if (message !== undefined) {
      if (this.#source[this.#at] !== openBrace) {
        throw this.#wrong(depth, `is ${this.#valueText()}; an object belongs here`)
      }
      if (depth === messageDepthMax) {
        throw this.#wrong(depth, `is nested more than ${messageDepthMax} messages deep`)
      }
      const start = this.#open(depth)
      this.#message(message, depth + 1)
      this.#close(start, depth)
      return
    }
    switch (field.kind) {
      case 'string':
        this.#string(depth)
        break
      case 'traceId':
        this.#id(depth, 16, 'a trace id is 32 hex digits or empty')
        break
      case 'spanId':
        this.#id(depth, 8, 'a span id is 16 hex digits or empty')
        break
      case 'bytes':
        this.#base64(depth)
        break
      case 'bool':
        this.#bool(depth)
        break
      case 'double':
        this.#double(depth)
        break
      case 'enum':
        this.#enum(depth, field.values)
        break
      case 'message':
        break
      default:
        this.#wholeNumber(depth, field.kind)
    }
  }

  // What follows reads one value and writes it without its tag.

  #string(depth: number): void {
    this.#requireText(depth, 'a string')
    const bytes = this.#textBytes
    const length = this.#textEnd - this.#textStart
    this.#need(length + 5)
    const output = this.#output
    let end = this.#end
    if (length < 0x80) output[end++] = length
    else end = writeVarint(output, end, length)
    if (length < nativeCopyBytesMin) {
      for (let at = this.#textStart; at < this.#textEnd; at++) output[end++] = bytes[at] as number
    } else {
      bytes.copy(output, end, this.#textStart, this.#textEnd)
      end += length
    }
    this.#end = end
  }

  #id(depth: number, size: number, rule: string): void {
    this.#requireText(depth, `hex in a string: ${rule}`)
    const bytes = this.#textBytes
    const start = this.#textStart
    const length = this.#textEnd - start
    this.#need(size + 1)
    if (length === 0) {
      this.#output[this.#end++] = 0
      return
    }
    if (length !== 2 * size) throw this.#wrong(depth, `is ${this.#quotedText()}; ${rule}`)
    this.#output[this.#end++] = size
    for (let i = 0; i < length; i += 2) {
      const byte =
        ((hexDigits[bytes[start + i] as number] as number) << 4) |
        (hexDigits[bytes[start + i + 1] as number] as number)
      if (byte < 0) throw this.#wrong(depth, `is ${this.#quotedText()}; ${rule}`)
      this.#output[this.#end++] = byte
    }
  }

  #base64(depth: number): void {
    this.#requireText(depth, 'base64 in a string')
    const bytes = this.#textBytes
    const start = this.#textStart
    let end = this.#textEnd
    const padded = end > start && bytes[end - 1] === 0x3d
    if (padded && (end - start) % 4 === 0) end -= bytes[end - 2] === 0x3d ? 2 : 1
    const digits = end - start
    if (digits % 4 === 1) throw this.#wrong(depth, `is ${this.#quotedText()}, which is not base64`)
    const length = Math.floor((digits * 3) / 4)
    this.#need(length + 5)
    this.#end = writeVarint(this.#output, this.#end, length)
    let bits = 0
    let count = 0
    for (let at = start; at < end; at++) {
      const digit = base64Digits[bytes[at] as number] as number
      if (digit < 0) throw this.#wrong(depth, `is ${this.#quotedText()}, which is not base64`)
      bits = ((bits << 6) | digit) & 0xffffff
      count += 6
      if (count >= 8) {
        count -= 8
        this.#output[this.#end++] = (bits >>> count) & 0xff
      }
    }
  }

  #bool(depth: number): void {
    this.#need(1)
    if (this.#source[this.#at] === 0x74) {
      this.#literal('true')
      this.#output[this.#end++] = 1
    } else if (this.#source[this.#at] === 0x66) {
      this.#literal('false')
      this.#output[this.#end++] = 0
    } else throw this.#wrong(depth, `is ${this.#valueText()}; true or false belongs here`)
  }

  #double(depth: number): void {
    this.#numberText(depth, 'a number')
    const text = this.#textBytes.toString('latin1', this.#textStart, this.#textEnd)
    const value = namedDoubles.get(text) ?? (numberForm.test(text) ? Number(text) : undefined)
    if (value === undefined) throw this.#wrong(depth, `is ${quoted(text)}; a number belongs here`)
    if (!Number.isFinite(value) && !namedDoubles.has(text)) {
      throw this.#wrong(depth, `is ${quoted(text)}, which is too large for a double`)
    }
    this.#need(8)
    doubles[0] = value
    this.#output.set(doubleBytes, this.#end)
    this.#end += 8
  }

  #enum(depth: number, values: ReadonlyMap<string, number>): void {
    if (this.#source[this.#at] !== quote) {
      this.#wholeNumber(depth, 'int32')
      return
    }
    this.#text()
    const value = values.get(this.#textBytes.toString('latin1', this.#textStart, this.#textEnd))
    if (value === undefined) {
      throw this.#wrong(
        depth,
        `is ${this.#quotedText()}; a number or one of ${[...values.keys()].join(', ')} belongs here`,
      )
    }
    this.#need(1)
    this.#output[this.#end++] = value
  }

  #wholeNumber(depth: number, kind: WholeKind): void {
    this.#numberText(depth, 'a whole number')
    const integer = this.#integer
    const fault = readInteger(this.#textBytes, this.#textStart, this.#textEnd, integer)
    if (fault !== undefined || !fits(integer, kind)) {
      throw this.#wrong(depth, `is ${this.#quotedText()}; a whole number ${ranges[kind]} belongs here`)
    }
    let { high, low } = integer
    if (integer.negative && (high !== 0 || low !== 0)) {
      low = -low >>> 0
      high = (~high + (low === 0 ? 1 : 0)) >>> 0
    }
    this.#need(10)
    switch (kind) {
      case 'sint32':
        this.#end = writeVarint(this.#output, this.#end, ((low << 1) ^ (low >> 31)) >>> 0)
        return
      case 'fixed32':
        this.#fixed32(low)
        return
      case 'fixed64':
      case 'sfixed64':
        this.#fixed32(low)
        this.#fixed32(high)
        return
      default:
        this.#varint64(high, low)
    }
  }

  #fixed32(value: number): void {
    const output = this.#output
    const end = this.#end
    output[end] = value
    output[end + 1] = value >>> 8
    output[end + 2] = value >>> 16
    output[end + 3] = value >>> 24
    this.#end = end + 4
  }

  #varint64(high: number, low: number): void {
    const output = this.#output
    let end = this.#end
    while (high !== 0 || low >= 0x80) {
      output[end++] = (low & 0x7f) | 0x80
      low = ((low >>> 7) | (high << 25)) >>> 0
      high >>>= 7
    }
    output[end++] = low
    this.#end = end
  }

  // Reading of JSON (RFC 8259).

  #space(): void {
    const source = this.#source
    let at = this.#at
    while (isSpace(source[at] as number)) at++
    this.#at = at
  }

  #key(message: JsonMessage): JsonField | undefined {
    const source = this.#source
    if (source[this.#at] !== quote) throw this.#unexpected('a name in quotes')
    const start = this.#at + 1
    let at = start
    let hash = 0
    for (;;) {
      const byte = source[at] as number
      if (byte === quote) break
      // Also where the source ends, and reading it answers undefined.
      if (!(byte >= 0x20) || byte === backslash) {
        this.#text()
        return message.find(
          this.#textBytes,
          this.#textStart,
          this.#textEnd,
          nameHash(this.#textBytes, this.#textStart, this.#textEnd),
        )
      }
      hash = nameHashStep(hash, byte)
      at++
    }
    this.#at = at + 1
    return message.find(source, start, at, hash)
  }

  #requireText(depth: number, what: string): void {
    if (this.#source[this.#at] !== quote)
      throw this.#wrong(depth, `is ${this.#valueText()}; ${what} belongs here`)
    this.#text()
  }

  /** Reads the string that starts here into `#textBytes`, `#textStart` and `#textEnd`. */
  #text(): void {
    const source = this.#source
    const start = this.#at + 1
    let at = start
    for (;;) {
      const byte = source[at] as number
      if (byte === quote) break
      if (!(byte >= 0x20) || byte === backslash) {
        this.#escapedText(start, at)
        return
      }
      at++
    }
    this.#textBytes = source
    this.#textStart = start
    this.#textEnd = at
    this.#at = at + 1
  }

  /** As `#text`, for a string whose first escape is at `at`. */
  #escapedText(start: number, at: number): void {
    const source = this.#source
    let close = at
    for (;;) {
      const byte = source[close] as number
      if (byte === quote) break
      if (!(byte >= 0x20)) {
        this.#at = close
        throw this.#unexpected('the end of the string')
      }
      close += byte === backslash ? 2 : 1
    }
    // No escape is shorter than what it stands for.
    const text = Buffer.allocUnsafe(close - start)
    let end = source.copy(text, 0, start, at)
    while (at < close) {
      const byte = source[at] as number
      if (byte !== backslash) {
        text[end++] = byte
        at++
        continue
      }
      const letter = source[at + 1] as number
      if (letter !== 0x75) {
        const meant = escapes.get(letter)
        if (meant === undefined) {
          this.#at = at + 1
          throw this.#unexpected('an escape of JSON')
        }
        text[end++] = meant
        at += 2
        continue
      }
      let character = this.#hex4(at + 2)
      at += 6
      if (character >= 0xd800 && character <= 0xdfff) {
        let pair = 0
        if (character < 0xdc00 && source[at] === backslash && source[at + 1] === 0x75)
          pair = this.#hex4(at + 2)
        if (pair >= 0xdc00 && pair <= 0xdfff) {
          character = 0x10000 + ((character & 0x3ff) << 10) + (pair & 0x3ff)
          at += 6
        } else character = 0xfffd
      }
      end = writeUtf8(text, end, character)
    }
    this.#textBytes = text
    this.#textStart = 0
    this.#textEnd = end
    this.#at = close + 1
  }

  #hex4(at: number): number {
    let value = 0
    for (let i = at; i < at + 4; i++) {
      const digit = hexDigits[this.#source[i] as number] ?? -1
      if (digit < 0) {
        this.#at = i
        throw this.#unexpected('four hex digits')
      }
      value = (value << 4) | digit
    }
    return value
  }

  /** Finds the text of a number, bare or in a string. Whether it is one, the caller has to see. */
  #numberText(depth: number, what: string): void {
    const source = this.#source
    const first = source[this.#at] as number
    if (first === quote) {
      this.#text()
      return
    }
    if (!(first >= 0x30 && first <= 0x39) && first !== 0x2d) {
      throw this.#wrong(depth, `is ${this.#valueText()}; ${what} belongs here`)
    }
    let at = this.#at
    while (numberCharacters[source[at] as number] === 1) at++
    this.#textBytes = source
    this.#textStart = this.#at
    this.#textEnd = at
    this.#at = at
  }

  #literal(word: string): void {
    for (let i = 0; i < word.length; i++) {
      if (this.#source[this.#at + i] !== word.charCodeAt(i)) {
        this.#at += i
        throw this.#unexpected(word)
      }
    }
    this.#at += word.length
  }

  /** Reads over the value of an unknown field, which must be JSON all the same. */
  #skip(): void {
    const source = this.#source
    /** For each open list or object, whether it is an object. */
    const open: boolean[] = []
    for (;;) {
      const first = source[this.#at]
      if (first === openBrace || first === openBracket) {
        const isObject = first === openBrace
        this.#at++
        this.#space()
        if (source[this.#at] !== (isObject ? closeBrace : closeBracket)) {
          if (open.length === skippedDepthMax) {
            throw new OtlpError(
              `an unknown field nests more than ${skippedDepthMax} deep at byte ${this.#at}`,
            )
          }
          open.push(isObject)
          if (isObject) this.#skipKey()
          continue
        }
        this.#at++
      } else this.#skipScalar()
      for (;;) {
        const isObject = open.at(-1)
        if (isObject === undefined) return
        this.#space()
        const next = source[this.#at]
        if (next === comma) {
          this.#at++
          this.#space()
          if (isObject) this.#skipKey()
          break
        }
        if (next !== (isObject ? closeBrace : closeBracket))
          throw this.#unexpected('a comma or a closing bracket')
        this.#at++
        open.pop()
      }
    }
  }

  #skipKey(): void {
    if (this.#source[this.#at] !== quote) throw this.#unexpected('a name in quotes')
    this.#text()
    this.#space()
    if (this.#source[this.#at] !== colon) throw this.#unexpected('a colon')
    this.#at++
    this.#space()
  }

  #skipScalar(): void {
    switch (this.#source[this.#at]) {
      case quote:
        this.#text()
        return
      case 0x74:
        this.#literal('true')
        return
      case 0x66:
        this.#literal('false')
        return
      case 0x6e:
        this.#literal('null')
        return
    }
    const start = this.#at
    while (numberCharacters[this.#source[this.#at] as number] === 1) this.#at++
    if (!numberForm.test(this.#source.toString('latin1', start, this.#at))) {
      this.#at = start
      throw this.#unexpected('a value')
    }
  }

  // Writing.

  #need(bytes: number): void {
    if (this.#end + bytes <= this.#output.length) return
    const larger = Buffer.allocUnsafeSlow(Math.max(this.#output.length * 2, this.#end + bytes))
    this.#output.copy(larger, 0, 0, this.#end)
    this.#output = larger
  }

  #tag(tag: number): void {
    this.#need(2)
    if (tag < 0x80) this.#output[this.#end++] = tag
    else this.#end = writeVarint(this.#output, this.#end, tag)
  }

  /** Leaves room for a length. Answers where what it counts starts. */
  #open(depth: number): number {
    this.#need(5)
    this.#end += lengthBytes[depth] as number
    return this.#end
  }

  /** Writes the length of what was written since `start` before it. */
  #close(start: number, depth: number): void {
    const length = this.#end - start
    const room = lengthBytes[depth] as number
    const taken = varintLength(length)
    if (taken !== room) {
      this.#need(5)
      this.#output.copyWithin(start - room + taken, start, this.#end)
      this.#end += taken - room
      lengthBytes[depth] = taken
    }
    writeVarint(this.#output, start - room, length)
  }

  // What is said of what is wrong.

  #unexpected(wanted: string): OtlpError {
    const at = this.#at
    if (at >= this.#source.length)
      return new OtlpError(`not JSON: the request ends where ${wanted} should stand`)
    const found = quoted(this.#source.toString('utf8', at, at + 16))
    return new OtlpError(`not JSON: at byte ${at} stands ${found} where ${wanted} should stand`)
  }

  #wrong(depth: number, what: string): OtlpError {
    let path = ''
    for (let level = 0; level <= depth; level++) {
      const index = this.#indexes[level] as number
      path += `${level === 0 ? '' : '.'}${this.#fields[level]?.field.jsonName}${index < 0 ? '' : `[${index}]`}`
    }
    return new OtlpError(`${shortPath(path)} ${what}`)
  }

  #quotedText(): string {
    return quoted(
      this.#textBytes.toString('utf8', this.#textStart, Math.min(this.#textEnd, this.#textStart + 400)),
    )
  }

  /** The beginning of the value that stands here. */
  #valueText(): string {
    const text = this.#source.toString('utf8', this.#at, this.#at + 40)
    const scalar = /^(?:"[^"]*"?|[^\s,\]}]+)/.exec(text)?.[0] ?? text
    switch (text[0]) {
      case '{':
        return 'an object'
      case '[':
        return 'a list'
      case undefined:
        return 'cut off'
      default:
        return quoted(scalar)
    }
  }
}

type WholeKind = Extract<
  ScalarKind,
  'int32' | 'uint32' | 'sint32' | 'fixed32' | 'int64' | 'uint64' | 'fixed64' | 'sfixed64'
>

const int32Range = 'from -2^31 to 2^31-1'
const uint32Range = 'from 0 to 2^32-1'
const int64Range = 'from -2^63 to 2^63-1'
const uint64Range = 'from 0 to 2^64-1'
const ranges: Record<WholeKind, string> = {
  int32: int32Range,
  sint32: int32Range,
  uint32: uint32Range,
  fixed32: uint32Range,
  int64: int64Range,
  sfixed64: int64Range,
  uint64: uint64Range,
  fixed64: uint64Range,
}

function fits({ negative, high, low }: Integer, kind: WholeKind): boolean {
  switch (kind) {
    case 'int32':
    case 'sint32':
      return high === 0 && (low < 0x80000000 || (negative && low === 0x80000000))
    case 'uint32':
    case 'fixed32':
      return high === 0 && (!negative || low === 0)
    case 'int64':
    case 'sfixed64':
      return high < 0x80000000 || (negative && high === 0x80000000 && low === 0)
    case 'uint64':
    case 'fixed64':
      return !negative || (high === 0 && low === 0)
  }
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}

function writeUtf8(bytes: Buffer, at: number, character: number): number {
  if (character < 0x80) {
    bytes[at++] = character
    return at
  }
  if (character < 0x800) bytes[at++] = 0xc0 | (character >>> 6)
  else {
    if (character < 0x10000) bytes[at++] = 0xe0 | (character >>> 12)
    else {
      bytes[at++] = 0xf0 | (character >>> 18)
      bytes[at++] = 0x80 | ((character >>> 12) & 0x3f)
    }
    bytes[at++] = 0x80 | ((character >>> 6) & 0x3f)
  }
  bytes[at++] = 0x80 | (character & 0x3f)
  return at
}

const numberForm = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$/
const namedDoubles: ReadonlyMap<string, number> = new Map([
  ['NaN', Number.NaN],
  ['Infinity', Number.POSITIVE_INFINITY],
  ['-Infinity', Number.NEGATIVE_INFINITY],
])
const escapes: ReadonlyMap<number, number> = new Map(
  [...'"\\/']
    .map((letter) => [letter.charCodeAt(0), letter.charCodeAt(0)] as const)
    .concat([
      [0x62, 0x08],
      [0x66, 0x0c],
      [0x6e, 0x0a],
      [0x72, 0x0d],
      [0x74, 0x09],
    ]),
)

const numberCharacters = digitTable('+-.0123456789Ee', () => 1)
const hexDigits = digitTable('0123456789abcdef', (index) => index)
for (let digit = 10; digit < 16; digit++) hexDigits[0x41 + digit - 10] = digit
const base64Digits = digitTable(
  'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/',
  (index) => index,
)
base64Digits[0x2d] = 62
base64Digits[0x5f] = 63

/** What each byte is worth, -1 for those that are none of `characters`. */
function digitTable(characters: string, worth: (index: number) => number): Int8Array {
  const table = new Int8Array(256).fill(-1)
  for (let i = 0; i < characters.length; i++) table[characters.charCodeAt(i)] = worth(i)
  return table
}
