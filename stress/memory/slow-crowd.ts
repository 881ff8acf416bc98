import { once } from 'node:events'
import http2 from 'node:http2'
import net from 'node:net'
import { generateRequest } from '../generator.ts'
import type { Ledger } from '../ledger.ts'
import type { Ingress } from '../machine.ts'
import { requestHead } from '../socket-client.ts'

/** How many connections are opened before the last ones of them have to be open. */
const opensAtOnce = 50
const trickleMs = 2_000
/** What half of the crowd holds in memory all the while: 64 MB of 1,000 clients. */
const heldBytes = 64 * 1024
const pipelined = 10

type Ended = () => boolean

/**
 * Clients that hold what they have got: heads and bodies that come byte by byte, answers that nobody reads, calls that
 * stop halfway, and calls to which no byte may be answered.
 */
export class SlowCrowd {
  readonly #ledger: Ledger
  readonly #ingress: Ingress
  readonly #grpcPort: number
  readonly #ends: (() => void)[] = []
  readonly #open: Ended[] = []
  readonly #timer: NodeJS.Timeout
  readonly #trickles: (() => void)[] = []
  #number = 0

  constructor(ledger: Ledger, ingress: Ingress, grpcPort: number) {
    this.#ledger = ledger
    this.#ingress = ingress
    this.#grpcPort = grpcPort
    this.#timer = setInterval(() => {
      for (const trickle of this.#trickles) trickle()
    }, trickleMs)
  }

  /** Opens so many connections, a fifth of each kind. */
  async come(connections: number): Promise<void> {
    const kinds = [
      () => this.#slowHead(),
      () => this.#slowBody(),
      () => this.#slowReader(),
      () => this.#slowCall(),
      () => this.#slowCaller(),
    ]
    for (let number = 0; number < connections; number += opensAtOnce) {
      await Promise.all(Array.from({ length: opensAtOnce }, (_, place) => kinds[place % kinds.length]?.()))
    }
  }

  /** How many came, and how many of them were open to the end; they go. */
  leave(): { all: number; open: number } {
    clearInterval(this.#timer)
    const open = this.#open.filter((isOpen) => isOpen()).length
    for (const end of this.#ends) end()
    return { all: this.#ends.length, open }
  }

  async #slowHead(): Promise<void> {
    const socket = await this.#connect()
    socket.write('POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nX-Slow: ')
    this.#trickles.push(() => socket.writable && socket.write('x'))
  }

  async #slowBody(): Promise<void> {
    const socket = await this.#connect()
    const head = requestHead({
      path: '/v1/logs',
      contentType: 'application/x-protobuf',
      encoding: 'identity',
      length: 2 * heldBytes,
    })
    socket.write(head)
    socket.write(Buffer.alloc(heldBytes))
    this.#trickles.push(() => socket.writable && socket.write('x'))
  }

  /** Sends requests one behind the other and reads no answer: nobody knows which of them were taken. */
  async #slowReader(): Promise<void> {
    const socket = await this.#connect()
    socket.pause()
    const run = `reader${(this.#number++).toString(36)}`
    for (let index = 0; index < pipelined; index++) {
      const request = generateRequest({ seed: 1, run, itemsMax: 10 }, index)
      const { signal, contentType, encoding, body } = request
      socket.write(requestHead({ path: `/v1/${signal}`, contentType, encoding, length: body.length }))
      socket.write(body)
      this.#ledger.record(request, { kind: 'lost', why: 'nobody read', tookMs: 0 })
    }
  }

  /** Says how long its message is and stops halfway. */
  async #slowCall(): Promise<void> {
    const session = await this.#session()
    const stream = session.request(grpcHead, { endStream: false })
    stream.on('error', () => undefined)
    const prefix = Buffer.alloc(5)
    prefix.writeUInt32BE(2 * heldBytes, 1)
    stream.write(prefix)
    stream.write(Buffer.alloc(heldBytes))
  }

  /** Makes calls, and lets nobody send a byte of an answer. */
  async #slowCaller(): Promise<void> {
    const session = await this.#session(0)
    for (let index = 0; index < pipelined; index++) {
      const stream = session.request(grpcHead)
      stream.on('error', () => undefined)
      stream.end(Buffer.alloc(5))
    }
  }

  async #connect(): Promise<net.Socket> {
    const { hostname, port } = this.#ingress.url
    const socket = net.connect({ host: hostname, port: Number(port) })
    socket.on('error', () => undefined)
    await once(socket, 'connect')
    this.#ends.push(() => socket.destroy())
    this.#open.push(() => !socket.destroyed)
    return socket
  }

  async #session(initialWindowSize?: number): Promise<http2.ClientHttp2Session> {
    const session = http2.connect(`http://127.0.0.1:${this.#grpcPort}`, {
      ...(initialWindowSize === undefined ? {} : { settings: { initialWindowSize } }),
    })
    session.on('error', () => undefined)
    await once(session, 'connect')
    this.#ends.push(() => session.destroy())
    this.#open.push(() => !session.destroyed)
    return session
  }
}

const grpcHead = {
  ':method': 'POST',
  ':path': '/opentelemetry.proto.collector.logs.v1.LogsService/Export',
  'content-type': 'application/grpc',
  te: 'trailers',
}
