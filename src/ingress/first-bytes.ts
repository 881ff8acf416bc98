import type { Server, Socket } from 'node:net'
import type { Clock } from '../foundation/clock.ts'
import { statusBody } from '../otlp/answer.ts'
import { mediaTypes } from './content-type.ts'
import { endSocket } from './listening.ts'
import { rpcCodes } from './outcome.ts'
import { requestIdOf } from './request-id.ts'

/** How the connections of one protocol begin, and what becomes of others. */
export interface FirstBytesOptions {
  /** How many bytes it takes to tell. */
  count: number
  /** Undefined when a connection begins as it must, else a sentence for whoever opened it. */
  objection: (first: Buffer) => string | undefined
  onRefused: (objection: string) => void
  /** A connection that has not begun by then is cut. */
  timeoutMs: number
  clock: Clock
}

/** What whoever sends OTLP/HTTP to the port of OTLP/gRPC reads. */
export const grpcPort = 'this port takes OTLP/gRPC; OTLP/HTTP goes to its own port, 4318 by default'

/** HTTP/2 without TLS (RFC 9113, section 3.4). */
export const http2Start = {
  count: 4,
  objection: (first: Buffer): string | undefined => {
    if (first.toString('latin1', 0, 4) === 'PRI ') return undefined
    return isTlsRecord(first) ? 'this port takes gRPC without TLS' : grpcPort
  },
}

/** TLS: a record of the handshake (RFC 8446, section 5.1). */
export const tlsStart = {
  count: 2,
  objection: (first: Buffer) => (isTlsRecord(first) ? undefined : 'this port takes TLS only'),
}

function isTlsRecord(first: Buffer): boolean {
  return first[0] === 0x16 && first[1] === 0x03
}

/**
 * Lets a server see only connections that begin as its protocol does. Others are answered with 400 in plain HTTP/1.1, so
 * that whoever sends to the wrong port reads why; the server itself would drop them without a word.
 */
export function requireFirstBytes(server: Server, options: FirstBytesOptions): void {
  const listeners = server.listeners('connection')
  server.removeAllListeners('connection')
  server.on('connection', (socket: Socket) => {
    takeFirstBytes(socket, options, (first) => {
      const objection = options.objection(first)
      if (objection === undefined) {
        socket.unshift(first)
        for (const listener of listeners) listener.call(server, socket)
      } else {
        options.onRefused(objection)
        endSocket(socket, plainRefusal(objection), options.clock)
      }
    })
  })
}

/** Hands over what a connection says first, as soon as it is long enough to be judged; cuts one that says less in time. */
function takeFirstBytes(
  socket: Socket,
  { count, clock, timeoutMs }: FirstBytesOptions,
  take: (first: Buffer) => void,
): void {
  let first: Buffer = Buffer.alloc(0)
  const over = new AbortController()
  const stop = () => over.abort()
  const onReadable = () => {
    const more: Buffer | null = socket.read()
    if (more === null) return
    first = Buffer.concat([first, more])
    if (first.length < count) return
    socket.off('readable', onReadable)
    stop()
    take(first)
  }
  socket.on('readable', onReadable)
  socket.on('end', stop)
  socket.on('close', stop)
  socket.on('error', ignore)
  void clock.sleep(timeoutMs, over.signal).then(() => {
    if (first.length < count) socket.destroy()
    socket.off('end', stop)
    socket.off('close', stop)
    socket.off('error', ignore)
  })
}

function ignore(): void {
  // A connection that breaks before it has said anything concerns nobody.
}

/** A whole answer for a connection that nobody can answer in its own protocol. */
export function plainRefusal(
  message: string,
  { status = '400 Bad Request', requestId = requestIdOf(undefined) } = {},
): Buffer {
  const body = statusBody('json', rpcCodes.invalidArgument, message)
  const head = [
    `HTTP/1.1 ${status}`,
    `Content-Type: ${mediaTypes.json}`,
    `Content-Length: ${body.length}`,
    `X-Request-Id: ${requestId}`,
    'Connection: close',
    '',
    '',
  ]
  return Buffer.concat([Buffer.from(head.join('\r\n')), body])
}
