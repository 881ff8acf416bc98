import type { AnswerWatch, Piece } from './proxy.ts'

const headerBytes = 5
/** Codes that a client sends before its first message (PostgreSQL documentation, "Message Formats"). */
const sslRequestCode = 80877103
const gssRequestCode = 80877104
/** A place in the row of statements: where the server will say that it is ready for the next one. */
const sync = Symbol('sync')

/**
 * Follows the PostgreSQL protocol on one connection. The answer to a statement is everything from its
 * CommandComplete to the ReadyForQuery behind it, and it is named by the statement's text: at ReadyForQuery outside
 * of a transaction block the commit has happened, and its client does not know it yet. A statement that failed at its
 * commit has no answer. Behind TLS nothing is followed.
 */
export class PostgresAnswers implements AnswerWatch {
  readonly #statements = new Map<string, string>()
  readonly #expected: (string | typeof sync)[] = []
  #toServer: Buffer = Buffer.alloc(0)
  #toClient: Buffer = Buffer.alloc(0)
  /** Bytes of a message that are let through without a look. */
  #serverSkips = 0
  #clientSkips = 0
  #started = false
  #asksForTls = false
  #opaque = false
  #bound = ''
  /** From CommandComplete on, until it is known whether the commit happened. */
  #kept: Buffer[] = []
  #completed: string | undefined

  /** Names no request: several may be under way at once. */
  request(chunk: Buffer): undefined {
    if (this.#opaque) return
    let data = chunk
    if (this.#serverSkips > 0) {
      const skipped = Math.min(this.#serverSkips, data.length)
      this.#serverSkips -= skipped
      data = data.subarray(skipped)
    }
    this.#toServer = Buffer.concat([this.#toServer, data])
    let at = 0
    for (;;) {
      const left = this.#toServer.length - at
      if (!this.#started) {
        if (left < 8) break
        const length = this.#toServer.readInt32BE(at)
        if (left < length) break
        const code = this.#toServer.readInt32BE(at + 4)
        this.#asksForTls = code === sslRequestCode || code === gssRequestCode
        this.#started = !this.#asksForTls
        at += length
        continue
      }
      if (left < headerBytes) break
      const type = String.fromCharCode(this.#toServer[at] ?? 0)
      const length = 1 + this.#toServer.readInt32BE(at + 1)
      if (type === 'd') {
        const here = Math.min(left, length)
        this.#serverSkips = length - here
        at += here
        continue
      }
      if (left < length) break
      this.#say(type, this.#toServer.subarray(at + headerBytes, at + length))
      at += length
    }
    this.#toServer = this.#toServer.subarray(at)
  }

  answer(chunk: Buffer): Piece[] {
    if (this.#asksForTls) {
      this.#asksForTls = false
      this.#opaque = chunk[0] === 'S'.charCodeAt(0)
      return [{ bytes: chunk }]
    }
    if (this.#opaque) return [{ bytes: chunk }]
    const pieces: Piece[] = []
    const data = this.#toClient.length === 0 ? chunk : Buffer.concat([this.#toClient, chunk])
    let [at, from] = [0, 0]
    const flush = () => {
      if (at === from) return
      const bytes = data.subarray(from, at)
      from = at
      if (this.#kept.length > 0) this.#kept.push(bytes)
      else pieces.push({ bytes })
    }
    while (at < data.length) {
      if (this.#clientSkips > 0) {
        const skipped = Math.min(this.#clientSkips, data.length - at)
        this.#clientSkips -= skipped
        at += skipped
        continue
      }
      if (data.length - at < headerBytes) break
      const type = String.fromCharCode(data[at] ?? 0)
      const length = 1 + data.readInt32BE(at + 1)
      if (type === 'D' || type === 'd') {
        this.#clientSkips = length
        continue
      }
      if (data.length - at < length) break
      if (type === 'C') {
        flush()
        if (this.#kept.length === 0) this.#kept.push(Buffer.alloc(0))
        const [statement] = this.#expected
        if (typeof statement === 'string') {
          this.#expected.shift()
          this.#completed = statement
        }
      } else if (type === 'E') {
        this.#completed = undefined
      }
      at += length
      if (type !== 'Z') continue
      const committed = data[at - 1] === 'I'.charCodeAt(0)
      flush()
      if (this.#kept.length > 0) {
        const answers = committed ? this.#completed : undefined
        pieces.push({ bytes: Buffer.concat(this.#kept), ...(answers === undefined ? {} : { answers }) })
        this.#kept = []
      }
      this.#completed = undefined
      this.#expected.splice(0, this.#expected.indexOf(sync) + 1)
    }
    flush()
    this.#toClient = data.subarray(at)
    return pieces
  }

  #say(type: string, body: Buffer): void {
    if (type === 'Q') {
      this.#expected.push(textAt(body, 0), sync)
    } else if (type === 'P') {
      const name = textAt(body, 0)
      this.#statements.set(name, textAt(body, Buffer.byteLength(name) + 1))
    } else if (type === 'B') {
      const portal = textAt(body, 0)
      this.#bound = this.#statements.get(textAt(body, Buffer.byteLength(portal) + 1)) ?? ''
    } else if (type === 'E') {
      this.#expected.push(this.#bound)
    } else if (type === 'S') {
      this.#expected.push(sync)
    }
  }
}

/** A text of the protocol ends at its zero byte. */
function textAt(body: Buffer, start: number): string {
  return body.toString('utf8', start, body.indexOf(0, start))
}
