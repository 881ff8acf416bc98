import type { Http2Server } from 'node:http2'
import type { Socket } from 'node:net'
import type { Clock } from '../foundation/clock.ts'
import { statusBody } from '../otlp/answer.ts'
import { mediaTypes } from './content-type.ts'
import type { IngressEvents } from './events.ts'
import { endSocket } from './listening.ts'
import { rpcCodes } from './outcome.ts'

/** What a connection begins with (RFC 9113, section 3.4). */
const PREFACE_START = 'PRI '

/** What a client that does not speak HTTP/2 is told, and the log. */
const meanings = {
  http: 'this port takes OTLP/gRPC; OTLP/HTTP goes to its own port, 4318 by default',
  tls: 'this port takes gRPC without TLS',
}

/** What the opening of connections needs. */
export interface PrefaceOptions {
  /** A connection that has not begun by then is cut. */
  timeoutMs: number
  events: IngressEvents
  clock: Clock
}

/**
 * Lets a plain HTTP/2 server see only connections that begin as HTTP/2 does. Others are answered in HTTP/1.1, so that
 * whoever sends OTLP/HTTP to the wrong port reads why, and end; the server itself would drop them without a word.
 */
export function requirePreface(server: Http2Server, options: PrefaceOptions): void {
  const listeners = server.listeners('connection')
  server.removeAllListeners('connection')
  server.on('connection', (socket: Socket) => {
    takeFirstBytes(socket, options, (first) => {
      if (first.toString('latin1', 0, PREFACE_START.length) === PREFACE_START) {
        socket.unshift(first)
        for (const listener of listeners) listener.call(server, socket)
      } else {
        refuse(socket, first, options)
      }
    })
  })
}

/** Hands over what a connection says first, as soon as it is long enough to be judged; cuts one that says less in time. */
function takeFirstBytes(
  socket: Socket,
  { clock, timeoutMs }: PrefaceOptions,
  take: (first: Buffer) => void,
): void {
  let first: Buffer = Buffer.alloc(0)
  const over = new AbortController()
  const stop = () => over.abort()
  const onReadable = () => {
    const more: Buffer | null = socket.read()
    if (more === null) return
    first = Buffer.concat([first, more])
    if (first.length < PREFACE_START.length) return
    socket.off('readable', onReadable)
    stop()
    take(first)
  }
  socket.on('readable', onReadable)
  socket.on('end', stop)
  socket.on('close', stop)
  socket.on('error', ignore)
  void clock.sleep(timeoutMs, over.signal).then(() => {
    if (first.length < PREFACE_START.length) socket.destroy()
    socket.off('end', stop)
    socket.off('close', stop)
    socket.off('error', ignore)
  })
}

function ignore(): void {
  // A connection that breaks before it has said anything concerns nobody.
}

function refuse(socket: Socket, first: Buffer, { events, clock }: PrefaceOptions): void {
  const isTls = first[0] === 0x16 && first[1] === 0x03
  const message = isTls ? meanings.tls : meanings.http
  events.brokenGrpc('NO_HTTP2', message)
  const body = statusBody('json', rpcCodes.invalidArgument, message)
  const head = [
    'HTTP/1.1 400 Bad Request',
    `Content-Type: ${mediaTypes.json}`,
    `Content-Length: ${body.length}`,
    'Connection: close',
    '',
    '',
  ]
  endSocket(socket, Buffer.concat([Buffer.from(head.join('\r\n')), body]), clock)
}
