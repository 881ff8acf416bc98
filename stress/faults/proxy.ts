import { once } from 'node:events'
import net from 'node:net'
import type { SeededRandom } from '../seeded-random.ts'

export type Direction = 'to server' | 'to client'

/**
 * How a connection comes to its end.
 * - `closed`: both sides are told in good order (FIN).
 * - `reset`: both sides are told that it broke (RST).
 * - `half-closed`: one side is told that the other says nothing more; the other way stays open.
 */
export type Ending = 'closed' | 'reset' | 'half-closed'

/**
 * How the way to the server behaves.
 * - `open`: as if the proxy were not there.
 * - `slow`: what comes after a pause waits for `delayMs` first, so that each request of a client waits once.
 * - `requests held`: nothing reaches the server.
 * - `answers held`: requests reach the server, its answers do not come back.
 * - `silent`: neither the one nor the other.
 * - `refused`: connections are reset, new ones at once.
 * - `answered`: the first bytes of each connection are answered with these, the server never sees them.
 * - `garbled`: in one direction a byte in about `bytesBetween`, by chance, becomes another.
 * - `ended`: each connection ends after at most `bytesMax` further bytes in one direction, by chance.
 */
export type ProxyMode =
  | { readonly kind: 'open' }
  | { readonly kind: 'slow'; readonly delayMs: number }
  | { readonly kind: 'requests held' }
  | { readonly kind: 'answers held' }
  | { readonly kind: 'silent' }
  | { readonly kind: 'refused' }
  | { readonly kind: 'answered'; readonly bytes: Buffer }
  | { readonly kind: 'garbled'; readonly direction: Direction; readonly bytesBetween: number }
  | { readonly kind: 'ended'; readonly direction: Direction; readonly bytesMax: number; readonly how: Ending }

/** Bytes on their way to the client; `answers` names what they are the end of the answer to. */
export interface Piece {
  readonly bytes: Buffer
  readonly answers?: string
}

/** Follows one connection, to know which bytes are the answer to what. */
export interface AnswerWatch {
  /** Told of the bytes on their way to the server. May answer the name of a request that begins with them. */
  request(chunk: Buffer): string | undefined
  /** Cuts the bytes on their way to the client into pieces; may keep some back until more has come. */
  answer(chunk: Buffer): Piece[]
}

export interface FaultProxyOptions {
  target: { readonly host: string; readonly port: number } | { readonly path: string }
  random: SeededRandom
  /** Needed for losing answers: a watch of its own for each connection. */
  watch?: () => AnswerWatch
}

/** Answers that are to be lost. */
export interface LostAnswers {
  /** How many have been lost so far. */
  readonly count: number
  /** Resolves when as many are lost as were to be. */
  readonly done: Promise<void>
  /** Loses no more. */
  stop(): void
}

/** Requests that are on their way for long. */
export interface LateRequests {
  /** Of those that were held up, in the words of the watch. */
  readonly names: readonly string[]
  /** Holds no further ones up. */
  stop(): void
  /**
   * Lets them arrive, whatever has become of their clients, and resolves with their answers, in the words of the watch;
   * nobody else hears these.
   */
  deliver(): Promise<string[]>
}

interface Pair {
  readonly client: net.Socket
  readonly server: net.Socket
  readonly watch: AnswerWatch | undefined
  readonly over: AbortController
  /** Set while what the client says is kept from the server. */
  late: Late | undefined
}

interface Late {
  readonly name: string
  readonly chunks: Buffer[]
  readonly answer: PromiseWithResolvers<string>
}

interface Delaying {
  readonly wanted: (request: string) => boolean
  readonly pairs: Pair[]
}

interface Losing {
  readonly wanted: (answer: string) => boolean
  readonly how: Exclude<Ending, 'half-closed'>
  left: number
  count: number
  finish: () => void
}

const heldBy: Readonly<Record<Direction, ReadonlySet<ProxyMode['kind']>>> = {
  'to server': new Set(['requests held', 'silent']),
  'to client': new Set(['answers held', 'silent']),
}
/** Bytes that follow one another within this time belong together. */
const pauseMs = 5

/** A TCP proxy before a server, whose behaviour can be changed at any moment, for connections that are open, too. */
export class FaultProxy {
  readonly #server: net.Server
  readonly #options: FaultProxyOptions
  readonly #pairs = new Set<Pair>()
  readonly #losing = new Set<Losing>()
  readonly #delaying = new Set<Delaying>()
  #mode: ProxyMode = { kind: 'open' }
  #changed = new AbortController()

  private constructor(options: FaultProxyOptions) {
    this.#options = options
    this.#server = net.createServer({ allowHalfOpen: true, noDelay: true }, (client) => this.#accept(client))
  }

  static async start(options: FaultProxyOptions): Promise<FaultProxy> {
    const proxy = new FaultProxy(options)
    proxy.#server.listen(0, '127.0.0.1')
    await once(proxy.#server, 'listening')
    return proxy
  }

  get port(): number {
    return (this.#server.address() as net.AddressInfo).port
  }

  /** Where a client of an HTTP server finds it. */
  get endpoint(): URL {
    return new URL(`http://127.0.0.1:${this.port}`)
  }

  get connections(): number {
    return this.#pairs.size
  }

  /** Changes the behaviour for connections that are open, too. What was held is let go unless it is held again. */
  set(mode: ProxyMode): void {
    this.#mode = mode
    if (mode.kind === 'refused') this.end('reset')
    this.#tell()
  }

  /** Ends the connections that are open now; `direction` says which side hears of it, for `half-closed`. */
  end(how: Ending, direction: Direction = 'to client'): void {
    for (const pair of [...this.#pairs]) endPair(pair, how, direction)
  }

  /**
   * Loses the next `count` answers that are wanted: the server has given them, and the connection ends before any of
   * their last bytes is passed on.
   */
  loseAnswers(options: {
    wanted: (answer: string) => boolean
    count: number
    how?: Exclude<Ending, 'half-closed'>
  }): LostAnswers {
    const { wanted, count, how = 'reset' } = options
    const { promise: done, resolve } = Promise.withResolvers<void>()
    const losing: Losing = { wanted, how, left: count, count: 0, finish: resolve }
    this.#losing.add(losing)
    return {
      get count() {
        return losing.count
      },
      done,
      stop: () => this.#losing.delete(losing),
    }
  }

  /**
   * Keeps each request that is wanted, and whatever follows on its connection, from the server until it is delivered.
   * To its client the server is silent meanwhile; that it goes away does not undo what it has said.
   */
  delayRequests(wanted: (request: string) => boolean): LateRequests {
    const delaying: Delaying = { wanted, pairs: [] }
    this.#delaying.add(delaying)
    const lates = () => delaying.pairs.flatMap(({ late }) => (late === undefined ? [] : [late]))
    return {
      get names() {
        return lates().map(({ name }) => name)
      },
      stop: () => this.#delaying.delete(delaying),
      async deliver() {
        for (const { server, late } of delaying.pairs) {
          if (late !== undefined) server.write(Buffer.concat(late.chunks))
        }
        const answers = await Promise.all(lates().map(({ answer }) => answer.promise))
        for (const pair of delaying.pairs) endPair(pair, 'closed', 'to client')
        return answers
      },
    }
  }

  async stop(): Promise<void> {
    for (const pair of [...this.#pairs]) endPair(pair, 'reset', 'to client')
    this.#tell()
    this.#server.close()
    await once(this.#server, 'close')
  }

  #tell(): void {
    const changed = this.#changed
    this.#changed = new AbortController()
    changed.abort(null)
  }

  #accept(client: net.Socket): void {
    client.on('error', unheard)
    if (this.#mode.kind === 'refused') {
      reset(client)
      return
    }
    const server = net.connect({ ...this.#options.target, noDelay: true, allowHalfOpen: true })
    server.on('error', unheard)
    const pair: Pair = {
      client,
      server,
      watch: this.#options.watch?.(),
      over: new AbortController(),
      late: undefined,
    }
    this.#pairs.add(pair)
    let closed = 0
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ] as const) {
      socket.on('close', (broken) => {
        closed++
        if (socket === server) pair.late?.answer.resolve(`${pair.late.name} without an answer`)
        const arrivesAllTheSame = socket === client && pair.late !== undefined
        // A connection that broke has broken on both sides; one that ended in good order may still say something.
        if (broken && !arrivesAllTheSame) reset(other)
        else if (socket.destroyed && !socket.readableEnded && !arrivesAllTheSame) other.destroy()
        if (closed < 2) return
        this.#pairs.delete(pair)
        pair.over.abort(null)
      })
    }
    for (const direction of ['to server', 'to client'] as const) {
      this.#pass(pair, direction).catch(() => {
        if (pair.late === undefined) endPair(pair, 'reset', direction)
      })
    }
  }

  async #pass(pair: Pair, direction: Direction): Promise<void> {
    const [from, to] = direction === 'to server' ? [pair.client, pair.server] : [pair.server, pair.client]
    let lastMs = Number.NEGATIVE_INFINITY
    let ending: { mode: ProxyMode; bytesLeft: number } | undefined
    // The other way goes on after the end of this one.
    for await (const chunk of from.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      if (direction === 'to server' && this.#isLate(chunk, pair)) continue
      const pieces = direction === 'to client' ? pair.watch?.answer(chunk) : undefined
      for (const piece of pieces ?? [{ bytes: chunk }]) {
        if (pair.late !== undefined && piece.answers !== undefined) pair.late.answer.resolve(piece.answers)
        if (this.#isLost(piece, pair)) return
        const mode = await this.#turn(pair, direction, lastMs)
        if (mode.kind === 'answered' && direction === 'to server') {
          // What else the client has to say is for nobody.
          if (!pair.client.writableEnded) pair.client.end(mode.bytes)
          continue
        }
        let { bytes } = piece
        if (mode.kind === 'garbled' && mode.direction === direction) {
          bytes = this.#garble(bytes, mode.bytesBetween)
        }
        if (mode.kind === 'ended' && mode.direction === direction) {
          if (ending?.mode !== mode) {
            ending = { mode, bytesLeft: this.#options.random.between(0, mode.bytesMax) }
          }
          bytes = bytes.subarray(0, ending.bytesLeft)
          ending.bytesLeft -= bytes.length
        }
        if (to.destroyed) return
        // What comes after one side was told that nothing does is for nobody.
        if (to.writableEnded) continue
        if (bytes.length > 0 && !to.write(bytes)) await drained(to)
        if (mode.kind === 'ended' && ending?.bytesLeft === 0) {
          endPair(pair, mode.how, direction)
          if (mode.how !== 'half-closed') return
        }
        lastMs = performance.now()
      }
    }
    await this.#turn(pair, direction, performance.now())
    // What is late may still come.
    if (pair.late === undefined) to.end()
  }

  /** Waits until bytes may go on their way, and says how. */
  async #turn(pair: Pair, direction: Direction, lastMs: number): Promise<ProxyMode> {
    let waitedMs = 0
    for (;;) {
      const mode = this.#mode
      const sinceMs = performance.now()
      if (pair.over.signal.aborted) return mode
      const isSlow = mode.kind === 'slow' && direction === 'to server' && sinceMs - lastMs > pauseMs
      if (heldBy[direction].has(mode.kind)) await this.#pause(Number.POSITIVE_INFINITY, pair)
      else if (isSlow && waitedMs < mode.delayMs) {
        await this.#pause(mode.delayMs - waitedMs, pair)
        waitedMs += performance.now() - sinceMs
      } else return mode
    }
  }

  #isLate(chunk: Buffer, pair: Pair): boolean {
    const name = pair.watch?.request(chunk)
    const by = name === undefined ? undefined : [...this.#delaying].find(({ wanted }) => wanted(name))
    if (name !== undefined && by !== undefined && pair.late === undefined) {
      pair.late = { name, chunks: [], answer: Promise.withResolvers() }
      by.pairs.push(pair)
    }
    pair.late?.chunks.push(chunk)
    return pair.late !== undefined
  }

  #isLost({ answers }: Piece, pair: Pair): boolean {
    if (answers === undefined) return false
    for (const losing of this.#losing) {
      if (!losing.wanted(answers)) continue
      losing.count++
      losing.left--
      if (losing.left === 0) {
        this.#losing.delete(losing)
        losing.finish()
      }
      endPair(pair, losing.how, 'to client')
      return true
    }
    return false
  }

  #garble(bytes: Buffer, bytesBetween: number): Buffer {
    const { random } = this.#options
    const out = Buffer.from(bytes)
    for (
      let at = random.between(0, 2 * bytesBetween);
      at < out.length;
      at += 1 + random.between(0, 2 * bytesBetween)
    ) {
      // Never the byte that it was.
      out[at] = (out[at] ?? 0) ^ random.between(1, 255)
    }
    return out
  }

  /** Ends after `ms`, when the behaviour changes, or with the connection. */
  async #pause(ms: number, pair: Pair): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = Number.isFinite(ms) ? setTimeout(resolve, ms) : undefined
    const signals = [this.#changed.signal, pair.over.signal]
    for (const signal of signals) signal.addEventListener('abort', () => resolve(), { once: true })
    await promise
    clearTimeout(timer)
  }
}

function endPair({ client, server }: Pair, how: Ending, direction: Direction): void {
  if (how === 'half-closed') {
    const told = direction === 'to client' ? client : server
    told.end()
    return
  }
  for (const socket of [client, server]) {
    if (how === 'reset') reset(socket)
    else socket.destroy()
  }
}

/** A Unix socket knows no reset. */
function reset(socket: net.Socket): void {
  if (socket.remoteFamily === undefined) socket.destroy()
  else socket.resetAndDestroy()
}

function unheard(): void {
  // The other side is told by `close`, which always follows.
}

/** Resolves when the socket takes more, or has closed. A large body waits often, so nothing of a wait may stay. */
function drained(socket: net.Socket): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      socket.off('drain', done)
      socket.off('close', done)
      resolve()
    }
    socket.on('drain', done)
    socket.on('close', done)
  })
}
