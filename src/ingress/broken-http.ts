import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Clock } from '../foundation/clock.ts'
import type { IngressEvents } from './events.ts'
import { plainRefusal } from './first-bytes.ts'
import { endSocket } from './listening.ts'
import { type BrokenOff, breakOffReading } from './read-body.ts'
import { isDiscarding } from './reply.ts'
import { requestIdOf } from './request-id.ts'

/** What Node's parser reports through `clientError`. */
interface ParserError extends Error {
  code?: string
  rawPacket?: Buffer
}

const TOO_LATE = 'ERR_HTTP_REQUEST_TIMEOUT'
const ENDED = 'HPE_INVALID_EOF_STATE'

/** Where it is not 400. */
const statuses: Record<string, string> = {
  [TOO_LATE]: '408 Request Timeout',
  HPE_CHUNK_EXTENSIONS_OVERFLOW: '413 Content Too Large',
  HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
}

const faults: Record<string, BrokenOff> = { [TOO_LATE]: 'too_slow', [ENDED]: 'cut_short' }

/**
 * Answers what is not HTTP, or not in time. Where it befalls a request that is in hand, that request's own answer says
 * so; else there is no request, so the answer is JSON. The connection ends with either.
 */
export class BrokenHttp {
  readonly #options: { events: IngressEvents; clock: Clock; inHand: Iterable<ServerResponse> }
  readonly #refused = new WeakSet<Socket>()

  constructor(options: { events: IngressEvents; clock: Clock; inHand: Iterable<ServerResponse> }) {
    this.#options = options
  }

  answer(error: ParserError, socket: Socket): void {
    // The parser complains again at every further byte of a connection that is only waiting to be closed.
    if (this.#refused.has(socket)) return
    const { code = error.name } = error
    if (code === 'ECONNRESET' || code === 'EPIPE' || !socket.writable) {
      socket.destroy()
      return
    }
    this.#refused.add(socket)
    const last = this.#lastInHand(socket)
    if (last !== undefined) {
      // Its own answer comes first, and those before it; nothing can follow on this connection.
      last.shouldKeepAlive = false
      breakOffReading(socket, faults[code] ?? 'bad_framing')
    } else if (isDiscarding(socket)) {
      socket.destroySoon()
    } else if (code === TOO_LATE && socket.bytesRead === 0) {
      // A probe, or a connection opened in advance: an answer would be taken for that to a request just being sent.
      socket.destroy()
    } else {
      this.#refuse(socket, code, meaningOf(error))
    }
  }

  /** The last of the requests on this connection that have no answer yet. */
  #lastInHand(socket: Socket): ServerResponse | undefined {
    let last: ServerResponse | undefined
    for (const outgoing of this.#options.inHand) if (outgoing.req.socket === socket) last = outgoing
    return last
  }

  #refuse(socket: Socket, code: string, message: string): void {
    const requestId = requestIdOf(undefined)
    this.#options.events.brokenHttp(requestId, code, message)
    const answer = plainRefusal(message, { status: statuses[code], requestId })
    endSocket(socket, answer, this.#options.clock)
  }
}

/** What a client that does not speak HTTP/1 most likely meant. */
function meaningOf({ code, rawPacket }: ParserError): string {
  if (code === TOO_LATE) return 'the request did not come in time'
  if (code === ENDED) return 'the connection ended in the middle of a request'
  if (code === 'HPE_HEADER_OVERFLOW') return 'the head of the request is larger than 16 KiB'
  if (code === 'HPE_CHUNK_EXTENSIONS_OVERFLOW') return 'the chunk extensions are larger than 16 KiB'
  if (rawPacket?.subarray(0, 14).toString('latin1') === 'PRI * HTTP/2.0') {
    return 'this port takes OTLP/HTTP over HTTP/1.1; OTLP/gRPC goes to its own port, 4317 by default'
  }
  if (rawPacket?.[0] === 0x16 && rawPacket[1] === 0x03) return 'this port takes plain HTTP, not TLS'
  return 'this is not HTTP/1.1'
}
