import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Clock } from '../foundation/clock.ts'
import { declaredLength } from './read-body.ts'

/** An answer as it goes on the wire. */
export interface Reply {
  readonly status: number
  readonly contentType: string
  readonly body: Buffer
  readonly requestId: string
  readonly retryAfterSeconds?: number | undefined
  /** The methods that the path knows, for 405. */
  readonly allow?: string | undefined
  /** Whether the connection ends with this answer in any case. */
  readonly close: boolean
}

/** An unread rest of at most this size is read and thrown away, so that the connection serves the next request. */
const DISCARDED_BYTES_MAX = 256 * 1024
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
  const unreadBytes = incoming.complete ? 0 : (declaredLength(incoming) ?? Number.POSITIVE_INFINITY)
  const lingers = unreadBytes > DISCARDED_BYTES_MAX || (unreadBytes > 0 && awaitsContinue(incoming))
  const headers = [
    'Content-Type',
    answer.contentType,
    'Content-Length',
    String(answer.body.length),
    'X-Request-Id',
    answer.requestId,
  ]
  if (answer.retryAfterSeconds !== undefined) headers.push('Retry-After', String(answer.retryAfterSeconds))
  if (answer.allow !== undefined) headers.push('Allow', answer.allow)
  if (answer.close || lingers) headers.push('Connection', 'close')
  outgoing.writeHead(answer.status, headers)
  if (!lingers) {
    // Without a body there is one buffer to write and not two.
    if (answer.body.length === 0) outgoing.end()
    else outgoing.end(answer.body)
    if (unreadBytes > 0) incoming.resume()
    return
  }
  outgoing.write(answer.body)
  await linger(incoming, clock)
  outgoing.end()
}

async function linger(incoming: IncomingMessage, clock: Clock): Promise<void> {
  const over = new AbortController()
  const stop = () => over.abort()
  let discardedBytes = 0
  const onData = (chunk: Buffer) => {
    discardedBytes += chunk.length
    if (discardedBytes > LINGER_BYTES_MAX) stop()
  }
  incoming.on('data', onData)
  incoming.on('end', stop)
  incoming.on('close', stop)
  incoming.on('error', stop)
  // A client that has ended its side in the middle of a body sends nothing more.
  incoming.socket.on('end', stop)
  incoming.resume()
  if (incoming.complete || incoming.destroyed || incoming.socket.readableEnded) stop()
  await clock.sleep(LINGER_MS, over.signal)
  incoming.off('data', onData)
  incoming.socket.off('end', stop)
}

const continueExpected = /(?:^|\W)100-continue(?:$|\W)/i

/** Whether the client holds its body back until it is told to go on (RFC 9110, section 10.1.1). */
export function awaitsContinue(incoming: IncomingMessage): boolean {
  const { expect } = incoming.headers
  return expect !== undefined && incoming.httpVersion === '1.1' && continueExpected.test(expect)
}
