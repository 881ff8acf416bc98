import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Clock } from '../foundation/clock.ts'
import { freeMemory } from '../foundation/memory.ts'
import type { RawHeaders } from './cors.ts'
import { declaredLength } from './read-body.ts'

/** An answer as it goes on the wire. */
export interface Reply {
  readonly status: number
  readonly contentType: string
  /** Undefined for 204, which has none. */
  readonly body: Buffer | undefined
  readonly requestId: string
  readonly retryAfterSeconds?: number | undefined
  /** The methods that the path knows, for 405 and OPTIONS. */
  readonly allow?: string | undefined
  /** What browsers are told. */
  readonly cors?: RawHeaders | undefined
  /** Whether the connection ends with this answer in any case. */
  readonly close: boolean
}

/** An unread rest of at most this size is read and thrown away, so that the connection serves the next request. */
const DISCARDED_BYTES_MAX = 256 * 1024
/**
 * Only its end tells how long a body in chunks is, and most have come whole by the time that they are refused. So
 * much longer they are waited for before the answer has to say whether the connection ends with it.
 */
const CHUNKED_END_MS = 100
/**
 * A connection that is closed while its client still sends is reset, and a reset takes the answer away from a
 * client that has not read it. So a refused upload is read on and thrown away for so long or so much, with the
 * whole answer already sent, before the connection ends (RFC 9112, section 9.6).
 */
const LINGER_MS = 2_000
const LINGER_BYTES_MAX = 64 * 1024 * 1024

/**
 * Writes the answer; resolves when nothing more is to be done with the request. A client that has gone away gets
 * nothing and harms nobody. Keep-alive is kept unless `close` is set or more is unread than is worth reading.
 */
export async function reply(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  answer: Reply,
  clock: Clock,
): Promise<void> {
  if (outgoing.destroyed || outgoing.headersSent) return
  const { body, requestId } = answer
  let unreadBytes = unreadBytesOf(incoming)
  const mayServeOn = outgoing.shouldKeepAlive && !answer.close && !awaitsContinue(incoming)
  if (unreadBytes === Number.POSITIVE_INFINITY && mayServeOn) {
    await discard(incoming, { forMs: CHUNKED_END_MS, bytesMax: DISCARDED_BYTES_MAX }, clock)
    if (outgoing.destroyed) return
    unreadBytes = unreadBytesOf(incoming)
  }
  const lingers = unreadBytes > DISCARDED_BYTES_MAX || (unreadBytes > 0 && !mayServeOn)
  const headers = ['X-Request-Id', requestId]
  if (body !== undefined) {
    headers.push('Content-Type', answer.contentType, 'Content-Length', String(body.length))
  }
  if (answer.retryAfterSeconds !== undefined) headers.push('Retry-After', String(answer.retryAfterSeconds))
  if (answer.allow !== undefined) headers.push('Allow', answer.allow)
  if (answer.cors !== undefined) headers.push(...answer.cors)
  if (answer.close || lingers) headers.push('Connection', 'close')
  outgoing.writeHead(answer.status, headers)
  if (!lingers) {
    // Without a body there is one buffer to write and not two.
    if (body === undefined || body.length === 0) outgoing.end()
    else outgoing.end(body)
    if (unreadBytes > 0) throwAwayRest(incoming)
    return
  }
  if (body !== undefined) outgoing.write(body)
  await discard(incoming, { forMs: LINGER_MS, bytesMax: LINGER_BYTES_MAX }, clock)
  outgoing.end()
}

function unreadBytesOf(incoming: IncomingMessage): number {
  return incoming.complete ? 0 : (declaredLength(incoming) ?? Number.POSITIVE_INFINITY)
}

/** Connections on which what was refused is still being thrown away after its answer. */
const discarding = new WeakSet<Socket>()

/** Whether what comes on this connection is the rest of a request that has been answered. */
export function isDiscarding(socket: Socket): boolean {
  return discarding.has(socket)
}

function throwAwayRest(incoming: IncomingMessage): void {
  const { socket } = incoming
  discarding.add(socket)
  incoming.on('end', () => discarding.delete(socket))
  incoming.on('data', freeMemory)
  incoming.resume()
}

/** Reads and throws away what comes, until it ends or has become too much, or the time is over. */
async function discard(
  incoming: IncomingMessage,
  { forMs, bytesMax }: { forMs: number; bytesMax: number },
  clock: Clock,
): Promise<void> {
  const over = new AbortController()
  const stop = () => over.abort()
  let discardedBytes = 0
  const onData = (chunk: Buffer) => {
    discardedBytes += chunk.length
    freeMemory(chunk)
    if (discardedBytes > bytesMax) stop()
  }
  incoming.on('data', onData)
  incoming.on('end', stop)
  incoming.on('close', stop)
  incoming.on('error', stop)
  // A client that has ended its side in the middle of a body sends nothing more.
  incoming.socket.on('end', stop)
  incoming.resume()
  if (incoming.complete || incoming.destroyed || incoming.socket.readableEnded) stop()
  await clock.sleep(forMs, over.signal)
  incoming.off('data', onData)
  incoming.off('end', stop)
  incoming.off('close', stop)
  incoming.off('error', stop)
  incoming.socket.off('end', stop)
}

const continueExpected = /(?:^|\W)100-continue(?:$|\W)/i

/** Whether the client holds its body back until it is told to go on (RFC 9110, section 10.1.1). */
export function awaitsContinue(incoming: IncomingMessage): boolean {
  const { expect } = incoming.headers
  return expect !== undefined && incoming.httpVersion === '1.1' && continueExpected.test(expect)
}
