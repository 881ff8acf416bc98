import { hexDigits, numberCharacters } from './digits.ts'
import { OtlpError, quoted } from './error.ts'
import { type JsonField, type JsonMessage, nameHash, nameHashStep } from './json-table.ts'
import { isNumber, zero } from './number-form.ts'

/** What a value that nobody reads may nest. */
const skippedDepthMax = 1000

export const quote = 0x22
const backslash = 0x5c
export const comma = 0x2c
export const colon = 0x3a
export const openBrace = 0x7b
export const closeBrace = 0x7d
export const openBracket = 0x5b
export const closeBracket = 0x5d

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

/** Where texts with escapes are put together; nothing is awaited while a request is read, so that one serves all. */
const scratch = Buffer.allocUnsafeSlow(16 * 1024)
/** From this many bytes on, a native copy is faster than a loop. */
const nativeCopyBytesMin = 64

/**
 * Reads JSON (RFC 8259) from UTF-8, forward, a piece at a time. Every method starts at `at` and leaves it after what it
 * read.
 *
 * @throws {OtlpError} from every method, where something else stands.
 */
export class JsonReader {
  readonly source: Buffer
  at = 0
  /** Where the text that was read last stands: in the source, or where it had escapes, elsewhere until the next is read. */
  textBytes: Buffer
  textStart = 0
  textEnd = 0

  constructor(source: Buffer) {
    this.source = source
    this.textBytes = source
  }

  /** The byte that stands here; undefined at the end. */
  next(): number | undefined {
    return this.source[this.at]
  }

  /** Reads over white space. */
  space(): void {
    const source = this.source
    let at = this.at
    while (isSpace(source[at] as number)) at++
    this.at = at
  }

  /** Reads a name. Answers the field of the message that it names, if there is one. */
  key(message: JsonMessage): JsonField | undefined {
    const source = this.source
    if (source[this.at] !== quote) throw this.unexpected('a name in quotes')
    const start = this.at + 1
    let at = start
    let hash = 0
    for (;;) {
      const byte = source[at] as number
      if (byte === quote) break
      // Also where the source ends, and reading it answers undefined.
      if (!(byte >= 0x20) || byte === backslash) {
        this.text()
        return message.find(
          this.textBytes,
          this.textStart,
          this.textEnd,
          nameHash(this.textBytes, this.textStart, this.textEnd),
        )
      }
      hash = nameHashStep(hash, byte)
      at++
    }
    this.at = at + 1
    return message.find(source, start, at, hash)
  }

  /** Reads the string that starts here into `textBytes`, `textStart` and `textEnd`. */
  text(): void {
    const source = this.source
    const start = this.at + 1
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
    this.textBytes = source
    this.textStart = start
    this.textEnd = at
    this.at = at + 1
  }

  /** As `text`, for a string whose first escape is at `at`. */
  #escapedText(start: number, at: number): void {
    const source = this.source
    let close = at
    for (;;) {
      const byte = source[close] as number
      if (byte === quote) break
      if (!(byte >= 0x20)) {
        this.at = close
        throw this.unexpected('the end of the string')
      }
      close += byte === backslash ? 2 : 1
    }
    // No escape is shorter than what it stands for.
    const text = close - start <= scratch.length ? scratch : Buffer.allocUnsafe(close - start)
    let end = 0
    if (at - start >= nativeCopyBytesMin) end = source.copy(text, 0, start, at)
    else for (let from = start; from < at; from++) text[end++] = source[from] as number
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
          this.at = at + 1
          throw this.unexpected('an escape of JSON')
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
    this.textBytes = text
    this.textStart = 0
    this.textEnd = end
    this.at = close + 1
  }

  #hex4(at: number): number {
    let value = 0
    for (let i = at; i < at + 4; i++) {
      const digit = hexDigits[this.source[i] as number] ?? -1
      if (digit < 0) {
        this.at = i
        throw this.unexpected('four hex digits')
      }
      value = (value << 4) | digit
    }
    return value
  }

  /**
   * Finds the text of a number, bare or in a string, as `text` does. Answers false where neither stands here. Whether
   * the text is a number, the caller has to see.
   */
  numberText(): boolean {
    const source = this.source
    const first = source[this.at] as number
    if (first === quote) {
      this.text()
      return true
    }
    if (!(first >= 0x30 && first <= 0x39) && first !== 0x2d) return false
    let at = this.at
    while (numberCharacters[source[at] as number] === 1) at++
    this.textBytes = source
    this.textStart = this.at
    this.textEnd = at
    this.at = at
    return true
  }

  /** Reads a bare whole number of at most nine digits. Answers -1, and reads nothing, where something else stands. */
  smallNumber(): number {
    const source = this.source
    const start = this.at
    const last = start + 9
    let at = start
    let value = 0
    for (; at < last; at++) {
      const digit = (source[at] as number) - zero
      // Also at the end, where it is NaN.
      if (!(digit >= 0 && digit <= 9)) break
      value = value * 10 + digit
    }
    if (at === start || numberCharacters[source[at] as number] === 1) return -1
    if (source[start] === zero && at > start + 1) return -1
    this.at = at
    return value
  }

  /** Reads over `word`, which must stand here. */
  literal(word: string): void {
    for (let i = 0; i < word.length; i++) {
      if (this.source[this.at + i] !== word.charCodeAt(i)) {
        this.at += i
        throw this.unexpected(word)
      }
    }
    this.at += word.length
  }

  /** Reads over the value of an unknown field, which must be JSON all the same. */
  skip(): void {
    const source = this.source
    /** For each open list or object, whether it is an object. */
    const open: boolean[] = []
    for (;;) {
      const first = source[this.at]
      if (first === openBrace || first === openBracket) {
        const isObject = first === openBrace
        this.at++
        this.space()
        if (source[this.at] !== (isObject ? closeBrace : closeBracket)) {
          if (open.length === skippedDepthMax) {
            throw new OtlpError(`an unknown field nests more than ${skippedDepthMax} deep at byte ${this.at}`)
          }
          open.push(isObject)
          if (isObject) this.#skipKey()
          continue
        }
        this.at++
      } else this.#skipScalar()
      for (;;) {
        const isObject = open.at(-1)
        if (isObject === undefined) return
        this.space()
        const next = source[this.at]
        if (next === comma) {
          this.at++
          this.space()
          if (isObject) this.#skipKey()
          break
        }
        if (next !== (isObject ? closeBrace : closeBracket))
          throw this.unexpected('a comma or a closing bracket')
        this.at++
        open.pop()
      }
    }
  }

  #skipKey(): void {
    if (this.source[this.at] !== quote) throw this.unexpected('a name in quotes')
    this.text()
    this.space()
    if (this.source[this.at] !== colon) throw this.unexpected('a colon')
    this.at++
    this.space()
  }

  #skipScalar(): void {
    switch (this.source[this.at]) {
      case quote:
        this.text()
        return
      case 0x74:
        this.literal('true')
        return
      case 0x66:
        this.literal('false')
        return
      case 0x6e:
        this.literal('null')
        return
    }
    const start = this.at
    while (numberCharacters[this.source[this.at] as number] === 1) this.at++
    if (!isNumber(this.source, start, this.at)) {
      this.at = start
      throw this.unexpected('a value')
    }
  }

  /** The error for something else than `wanted` at this place. */
  unexpected(wanted: string): OtlpError {
    const at = this.at
    if (at >= this.source.length)
      return new OtlpError(`not JSON: the request ends where ${wanted} should stand`)
    const found = quoted(this.source.toString('utf8', at, at + 16))
    return new OtlpError(`not JSON: at byte ${at} stands ${found} where ${wanted} should stand`)
  }

  /** The text that was found last, for a message. */
  quotedText(): string {
    return quoted(
      this.textBytes.toString('utf8', this.textStart, Math.min(this.textEnd, this.textStart + 400)),
    )
  }

  /** The value that stands here, for a message. */
  valueText(): string {
    const text = this.source.toString('utf8', this.at, this.at + 40)
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
