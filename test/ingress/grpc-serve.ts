import diagnostics from 'node:diagnostics_channel'
import { once } from 'node:events'
import http2, { type ClientHttp2Session, type IncomingHttpHeaders } from 'node:http2'
import type { Socket } from 'node:net'
import grpc from '@grpc/grpc-js'
import { ByteBudget } from '../../src/foundation/byte-budget.ts'
import { systemClock } from '../../src/foundation/clock.ts'
import { IngressEvents } from '../../src/ingress/events.ts'
import { ExportPath } from '../../src/ingress/export.ts'
import { GrpcIngress, type GrpcIngressOptions } from '../../src/ingress/grpc.ts'
import { RateLimit } from '../../src/ingress/rate-limit.ts'
import { type Signal, signals } from '../../src/otlp/signal.ts'
import type { OverflowDecision } from '../../src/queue/overflow.ts'
import { createMetrics, type Metrics } from '../../src/telemetry/metrics.ts'
import { collectingLog, FakeStager, oneSpan } from './serve.ts'

/** A gRPC listener that runs, and what a test may ask of it. */
export interface ServedGrpc extends AsyncDisposable {
  readonly port: number
  readonly grpc: GrpcIngress
  readonly stager: FakeStager
  readonly budget: ByteBudget
  readonly metrics: Metrics
  readonly settled: { bytes: number; committed: boolean }[]
  /** The log so far. Every line is JSON, or reading this throws. */
  lines(): Record<string, unknown>[]
  /** Replaces what the overflow policy answers. */
  decide(decision: OverflowDecision): void
  /** How many connections of clients are open, whatever they have said. */
  connections(): number
  /** From now on everything is refused for this reason; undefined ends that. */
  refuse(reason: string | undefined): void
}

/** What a test may want otherwise than it is in production. */
export type GrpcServeOptions = Partial<Omit<GrpcIngressOptions, 'rateLimit'>> & {
  rateLimit?: { perSecond: number; burst: number }
  inflightBytes?: number
}

/** A real gRPC listener on a free port with a fake queue behind it; everything else is what runs in production. */
export async function serveGrpc(options: GrpcServeOptions = {}): Promise<ServedGrpc> {
  const { log, lines } = collectingLog()
  const metrics = createMetrics()
  const events = new IngressEvents({ log, metrics, transport: 'grpc' })
  const stager = new FakeStager()
  const settled: { bytes: number; committed: boolean }[] = []
  let decision: OverflowDecision = { outcome: 'stage' }
  let refusal: string | undefined
  const overflow = {
    decide: () => decision,
    settled: (bytes: number, committed: boolean) => void settled.push({ bytes, committed }),
  }
  const maxBodyBytes = options.maxBodyBytes ?? 20 * 1024 * 1024
  const budget = new ByteBudget(options.inflightBytes ?? 128 * 1024 * 1024)
  const ingress = new GrpcIngress({
    host: '127.0.0.1',
    port: 0,
    signals: Object.keys(signals) as Signal[],
    exportPath: new ExportPath({ stager, overflow, maxBodyBytes, events, clock: systemClock }),
    budget,
    requestTimeoutMs: 60_000,
    tls: undefined,
    loadShedding: undefined,
    refusal: () => refusal,
    reachable: () => true,
    events,
    clock: systemClock,
    random: Math.random,
    ...options,
    maxBodyBytes,
    rateLimit: options.rateLimit && new RateLimit({ ...options.rateLimit, clock: systemClock }),
  })
  await ingress.start()
  const { port } = ingress.address
  const sockets = new Set<Socket>()
  const onSocket = (told: unknown) => {
    const { socket } = told as { socket: Socket }
    if (socket.localPort !== port) return
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  }
  diagnostics.subscribe('net.server.socket', onSocket)
  return {
    port,
    grpc: ingress,
    stager,
    budget,
    metrics,
    settled,
    lines,
    decide: (next) => {
      decision = next
    },
    connections: () => sockets.size,
    refuse: (reason) => {
      refusal = reason
    },
    async [Symbol.asyncDispose]() {
      await ingress.stop(AbortSignal.abort())
      diagnostics.unsubscribe('net.server.socket', onSocket)
      await log.close()
    },
  }
}

/** A signal that never aborts, for `stop`. */
export const never = new AbortController().signal

/** The path of the one method that takes a signal. */
export function exportPathOf(signal: Signal): string {
  return `/${signals[signal].service}/Export`
}

/** A message with its prefix ("gRPC over HTTP2", Length-Prefixed-Message). */
export function framed(message: Buffer, flag = 0): Buffer {
  const prefix = Buffer.alloc(5)
  prefix[0] = flag
  prefix.writeUInt32BE(message.length, 1)
  return Buffer.concat([prefix, message])
}

/** A plain HTTP/2 connection of a client, which goes with the test. */
export interface Session extends AsyncDisposable {
  readonly http2: ClientHttp2Session
  readonly socket: Socket
}

/** Connects in HTTP/2. However much waits to be sent, the client has memory for the answers. */
export async function connectHttp2(port: number): Promise<Session> {
  const session = http2.connect(`http://127.0.0.1:${port}`, { maxSessionMemory: 4096 })
  session.on('error', () => undefined)
  await once(session, 'connect')
  return {
    http2: session,
    socket: session.socket as Socket,
    async [Symbol.asyncDispose]() {
      if (session.destroyed) return
      const closed = once(session, 'close')
      session.destroy()
      await closed
    },
  }
}

/** What to send; what is left out is that of an export of one span. */
export interface GrpcRequest {
  signal?: Signal
  headers?: http2.OutgoingHttpHeaders
  /** The whole body with its prefix; undefined for no body at all. */
  body?: Buffer | undefined
  /** Whether to leave the call open after the body. */
  open?: boolean
}

/** An answer, frame by frame. */
export interface Reply {
  readonly headers: IncomingHttpHeaders
  /** Whether the first frame of headers was the last of the stream: the form in which each error must come. */
  readonly trailersOnly: boolean
  readonly trailers: IncomingHttpHeaders | undefined
  readonly body: Buffer
  /** The error code of RST_STREAM, 0 for none and for NO_ERROR. */
  readonly rstCode: number
  /** `grpc-status`, from wherever it came; undefined without one. */
  readonly status: number | undefined
  /** `grpc-message`, decoded. */
  readonly message: string | undefined
}

/** A call that is under way. */
export interface OpenCall {
  readonly stream: http2.ClientHttp2Stream
  readonly reply: Promise<Reply>
}

/** Begins a call. Its `reply` resolves when the stream is closed, however that happens. */
export function beginCall({ http2: session }: Session, request: GrpcRequest = {}): OpenCall {
  const { signal = 'traces', headers = {}, open = false } = request
  const body = 'body' in request ? request.body : framed(oneSpan)
  const stream = session.request(
    {
      ':method': 'POST',
      ':path': exportPathOf(signal),
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    },
    { endStream: body === undefined && !open },
  )
  const parts: Buffer[] = []
  let first: { headers: IncomingHttpHeaders; ended: boolean } | undefined
  let trailers: IncomingHttpHeaders | undefined
  stream.on('error', () => undefined)
  stream.on('response', (received, flags) => {
    first = { headers: received, ended: (flags & http2.constants.NGHTTP2_FLAG_END_STREAM) !== 0 }
  })
  stream.on('trailers', (received) => {
    trailers = received
  })
  stream.on('data', (part: Buffer) => parts.push(part))
  if (body !== undefined && open) stream.write(body)
  else if (body !== undefined) stream.end(body)
  const reply = new Promise<Reply>((resolve) => {
    stream.on('close', () => {
      const told = { ...first?.headers, ...trailers }
      const message = told['grpc-message']
      resolve({
        headers: first?.headers ?? {},
        trailersOnly: first?.ended === true && trailers === undefined,
        trailers,
        body: Buffer.concat(parts),
        rstCode: stream.rstCode,
        status: told['grpc-status'] === undefined ? undefined : Number(told['grpc-status']),
        message: typeof message === 'string' ? decodeURIComponent(message) : undefined,
      })
    })
  })
  return { stream, reply }
}

/** One call on a connection of its own. */
export async function callOnce(port: number, request: GrpcRequest = {}): Promise<Reply> {
  await using session = await connectHttp2(port)
  return await beginCall(session, request).reply
}

/** A reply in the few words that most tests compare. */
export function inShort({ status, trailersOnly, message }: Reply) {
  return { status, trailersOnly, message }
}

/** The same for an answer without an error: a frame of five zeros, which is a message of no bytes. */
export const fullSuccess = { status: 0, trailersOnly: false, body: '0000000000' }

/** A reply as `fullSuccess` has it. */
export function asSuccess({ status, trailersOnly, body }: Reply) {
  return { status, trailersOnly, body: body.toString('hex') }
}

/** What a client of grpc-js is told. */
export interface GrpcJsReply {
  readonly code: number
  readonly details: string
  readonly message: Buffer | undefined
  readonly metadata: grpc.Metadata
}

const asIs = (bytes: Buffer) => bytes

/** A client of grpc-js whose messages are bytes. */
export class GrpcJsClient implements AsyncDisposable {
  readonly client: grpc.Client

  constructor(port: number, options: grpc.ClientOptions = {}) {
    this.client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure(), options)
  }

  /** Makes a unary call; an error is a reply too. */
  call(
    path: string,
    message: Buffer,
    options: grpc.CallOptions = {},
    metadata = new grpc.Metadata(),
  ): Promise<GrpcJsReply> {
    return new Promise((resolve) => {
      this.client.makeUnaryRequest(path, asIs, asIs, message, metadata, options, (error, value) => {
        if (error === null) resolve({ code: 0, details: '', message: value, metadata })
        else
          resolve({ code: error.code, details: error.details, message: undefined, metadata: error.metadata })
      })
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client.close()
  }
}
