import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Clock } from '../foundation/clock.ts'
import { statusBody } from '../otlp/answer.ts'
import { mediaTypes } from './content-type.ts'
import type { IngressEvents } from './events.ts'
import { rpcCodes } from './outcome.ts'
import { breakOffReading } from './read-body.ts'
import { requestIdOf } from './request-id.ts'

/** What Node's parser reports through `clientError`. */
interface ParserError extends Error {
  code?: string
  rawPacket?: Buffer
}

const statusLines: Record<string, string> = {
  ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout',
  HPE_CHUNK_EXTENSIONS_OVERFLOW: '413 Content Too Large',
  HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
}

/** How long a refused connection is read on, so that the answer is not taken away by a reset. */
const LINGER_MS = 1_000

/**
 * Answers what is not HTTP, or not in time. It has no request, so the answer is JSON and the connection ends with it.
 */
export class BrokenHttp {
  readonly #options: { events: IngressEvents; clock: Clock; inHand: ReadonlySet<ServerResponse> }
  readonly #refused = new WeakSet<Socket>()

  constructor(options: { events: IngressEvents; clock: Clock; inHand: ReadonlySet<ServerResponse> }) {
    this.#options = options
  }

  answer(error: ParserError, socket: Socket): void {
    const { events, clock, inHand } = this.#options
    // The parser complains again at every further byte of a connection that is only waiting to be closed.
    if (this.#refused.has(socket)) return
    if (error.code === 'ECONNRESET' || error.code === 'EPIPE' || !socket.writable) {
      socket.destroy()
      return
    }
    const tooLate = error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
    for (const outgoing of inHand) {
      if (outgoing.req.socket !== socket) continue
      if (tooLate) {
        socket.destroy()
        return
      }
      // Its own answer comes first; nothing can follow on this connection.
      this.#refused.add(socket)
      outgoing.shouldKeepAlive = false
      breakOffReading(socket, 'bad_framing')
      return
    }
    this.#refused.add(socket)
    const requestId = requestIdOf(undefined)
    const message = tooLate ? 'the request did not come in time' : meaningOf(error)
    events.brokenHttp(requestId, error.code ?? error.name, message)
    const body = statusBody('json', rpcCodes.invalidArgument, message)
    socket.end(
      Buffer.concat([
        Buffer.from(
          `HTTP/1.1 ${statusLines[error.code ?? ''] ?? '400 Bad Request'}\r\n` +
            `Content-Type: ${mediaTypes.json}\r\nContent-Length: ${body.length}\r\n` +
            `X-Request-Id: ${requestId}\r\nConnection: close\r\n\r\n`,
        ),
        body,
      ]),
    )
    clock.deadline(LINGER_MS).addEventListener('abort', () => socket.destroy())
  }
}

/** What a client that does not speak HTTP/1 most likely meant. */
function meaningOf({ rawPacket }: ParserError): string {
  if (rawPacket?.subarray(0, 14).toString('latin1') === 'PRI * HTTP/2.0') {
    return 'this port takes OTLP/HTTP over HTTP/1.1; OTLP/gRPC goes to its own port, 4317 by default'
  }
  if (rawPacket?.[0] === 0x16 && rawPacket[1] === 0x03) return 'this port takes plain HTTP, not TLS'
  return 'this is not HTTP/1.1'
}
