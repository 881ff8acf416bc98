import {
  createSecureServer,
  createServer,
  type Http2SecureServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import type { Socket } from 'node:net'
import type { ByteBudget } from '../foundation/byte-budget.ts'
import type { Clock } from '../foundation/clock.ts'
import { invariant } from '../foundation/failure.ts'
import { Periodic } from '../foundation/periodic.ts'
import type { Service } from '../foundation/service.ts'
import { exportResponse } from '../otlp/answer.ts'
import { isKnownEncoding } from '../otlp/compression.ts'
import { OtlpError, quoted } from '../otlp/error.ts'
import { type Signal, signals } from '../otlp/signal.ts'
import type { IngressEvents } from './events.ts'
import { type ExportPath, noRoom, tooLargeMessage } from './export.ts'
import { grpcPort, http2Start, plainRefusal, requireFirstBytes, tlsStart } from './first-bytes.ts'
import { acceptedEncodings, answerHttp, answerMessage, answerStatus } from './grpc-answer.ts'
import { contentEncodingOf, timeoutMsOf, unframe } from './grpc-framing.ts'
import { GrpcHealth } from './grpc-health.ts'
import { type AnswerCall, CallError, endCall } from './grpc-messages.ts'
import { type CallReading, readCall } from './grpc-read.ts'
import { reflectionMethods } from './grpc-reflection.ts'
import { InHand, shuttingDown, tooMany } from './in-hand.ts'
import {
  addressOf,
  closeServer,
  dropBeyondMax,
  endSocket,
  type ListeningAddress,
  listen,
} from './listening.ts'
import { type LoadShedding, overloaded } from './load-shedding.ts'
import { type Outcome, partialSuccess, refusalAnswer, rpcCodes } from './outcome.ts'
import { Overdue } from './overdue.ts'
import type { RateLimit } from './rate-limit.ts'
import { requestIdOf } from './request-id.ts'
import { Reservation } from './reservation.ts'
import { handshakeFault, type TlsCertificate } from './tls.ts'

/** What the OTLP/gRPC listener needs. */
export interface GrpcIngressOptions {
  host: string
  /** 0 for any free port; `address` tells which. */
  port: number
  /** The signals that have a service here. */
  signals: readonly Signal[]
  exportPath: ExportPath
  /** Undefined admits everything. */
  rateLimit: RateLimit | undefined
  /** Undefined admits everything. */
  loadShedding: LoadShedding | undefined
  /** The bytes that all requests in flight may hold together. */
  budget: ByteBudget
  maxBodyBytes: number
  /** How long a call may take to come whole. */
  requestTimeoutMs: number
  /** Undefined for gRPC without TLS. */
  tls: TlsCertificate | undefined
  /** Why nothing can be taken now, in a sentence for the sender; undefined when all is well. Asked for each call. */
  refusal: () => string | undefined
  /** Whether the database answers, as health checks are told. */
  reachable: () => boolean
  events: IngressEvents
  clock: Clock
  random: () => number
}

/** A call in hand. */
interface Call {
  readonly stream: ServerHttp2Stream
  readonly headers: IncomingHttpHeaders
  readonly signal: Signal | undefined
  readonly requestId: string
  readonly startedMs: number
  /** The reading of its message while that goes on, and until when it may, by the monotonic clock. */
  reading?: CallReading | undefined
  readUntilMs: number
  /** What to do when the time is over that its client gives it. */
  onLate?: () => void
  lateMs: number
  /** Settles when it is certain what becomes of the call, which may be after its client's time. */
  certain?: Promise<unknown>
}

const CONNECTIONS_MAX = 10_000
/** Answers that their clients have not read, of about a kilobyte each; beyond it the oldest is given up. */
const UNREAD_MAX = 10_000
/** Calls of health and reflection, which may last for ever; beyond it the oldest is ended. */
const QUESTIONS_MAX = 200
/** Of those on one connection. Who watches needs one. */
const QUESTIONS_PER_CONNECTION_MAX = 16
/** What grpc-go and the HTTP/2 specification recommend at least; a client with more to say waits or opens another. */
const STREAMS_MAX = 100
/** How much a client may send before we have read it, of one call and of a connection: a megabyte each round trip. */
const STREAM_WINDOW_BYTES = 1024 * 1024
const SESSION_WINDOW_BYTES = 4 * 1024 * 1024
/** Metadata of a call; what gRPC recommends. */
const HEADER_BYTES_MAX = 8 * 1024
/** Headers that wait to be read, of a whole connection, in MB. */
const SESSION_MEMORY_MB = 16
/** How exactly deadlines are kept. */
const WATCH_INTERVAL_MS = 50
const tooLate: Outcome = { kind: 'too_late', message: 'the call was not done when its time was over' }
const contentTypes = /^application\/grpc(?:\+proto)?(?:\s*;.*)?$/i

/**
 * The OTLP/gRPC listener: unary calls on `node:http2`, whose bytes go the way of OTLP/HTTP without being decoded.
 * docs/decisions/0015 says why it is not grpc-js, with the figures.
 *
 * **Maintained invariant**: each call in `#inHand` is answered, or its client has gone, and what it staged is certain, before
 * it leaves.
 */
export class GrpcIngress implements Service {
  readonly name = 'grpc ingress'
  readonly #options: GrpcIngressOptions
  readonly #signals = new Map<string, Signal>()
  readonly #health: GrpcHealth
  /** What answers the methods that take no telemetry, by path. */
  readonly #others: ReadonlyMap<string, AnswerCall>
  readonly #unknownPath: Outcome
  /** Every connection, also those that have not begun to speak HTTP/2. */
  readonly #sockets = new Set<Socket>()
  readonly #sessions = new Set<ServerHttp2Session>()
  /** Connections that have brought at least one call. */
  readonly #spoken = new WeakSet<ServerHttp2Session>()
  readonly #inHand = new InHand<Call>()
  /** Connections that have not come to the end of how HTTP/2 begins. */
  readonly #beginning = new Overdue<ServerHttp2Session>(CONNECTIONS_MAX, (session) => session.destroy())
  readonly #questions = new Overdue<ServerHttp2Stream>(QUESTIONS_MAX, (stream) => {
    endCall(stream, rpcCodes.unavailable, 'too many calls of this service are open')
    this.#leave(stream)
  })
  readonly #questionsByConnection = new WeakMap<object, Set<ServerHttp2Stream>>()
  /** Calls that were answered, until their client has read it. */
  readonly #unread = new Overdue<ServerHttp2Stream>(UNREAD_MAX, (stream) => stream.destroy())
  readonly #watch: Periodic
  #server: Http2Server | Http2SecureServer | undefined
  #draining = false
  #stopped: Promise<void> | undefined

  constructor(options: GrpcIngressOptions) {
    this.#options = options
    const { clock, refusal } = options
    const names = options.signals.map((signal) => signals[signal].service)
    for (const signal of options.signals) this.#signals.set(`/${signals[signal].service}/Export`, signal)
    this.#unknownPath = {
      kind: 'unknown_path',
      message: `there is no such method; OTLP is taken by Export of ${names.join(', ')}`,
    }
    this.#health = new GrpcHealth({
      services: names,
      serving: () => !this.draining && options.reachable() && refusal() === undefined,
    })
    this.#others = new Map([...this.#health.methods, ...reflectionMethods(options.signals)])
    this.#watch = new Periodic({ clock, pauseMs: () => WATCH_INTERVAL_MS, work: async () => this.#look() })
  }

  /** Where it listens. */
  get address(): ListeningAddress {
    return addressOf(this.#server)
  }

  /** True from the moment that `stop` was called: nothing new is taken. */
  get draining(): boolean {
    return this.#draining
  }

  /**
   * Resolves when it listens.
   *
   * @throws Failure `configuration` when the address cannot be had.
   */
  start(): Promise<void> {
    const { host, port, events, clock, requestTimeoutMs, tls } = this.#options
    const http2Options = {
      settings: {
        maxConcurrentStreams: STREAMS_MAX,
        initialWindowSize: STREAM_WINDOW_BYTES,
        maxHeaderListSize: HEADER_BYTES_MAX,
        enablePush: false,
      },
      maxSessionMemory: SESSION_MEMORY_MB,
      // Clients that have vanished are found out by TCP: idle connections are kept without end.
      keepAlive: true,
      keepAliveInitialDelay: 60_000,
    }
    const server = tls
      ? createSecureServer({ ...tls.serverOptions, ...http2Options })
      : createServer(http2Options)
    dropBeyondMax(server, CONNECTIONS_MAX)
    requireFirstBytes(server, {
      ...(tls ? tlsStart : http2Start),
      onRefused: (objection) => events.brokenGrpc('wrong_protocol', objection),
      timeoutMs: requestTimeoutMs,
      clock,
    })
    if (tls) {
      tls.serve(server as Http2SecureServer)
      server.on('tlsClientError', (error, socket) => events.handshakeFailed(handshakeFault(error, socket)))
      server.on('unknownProtocol', (socket: Socket) => {
        events.brokenGrpc('wrong_protocol', grpcPort)
        endSocket(socket, plainRefusal(grpcPort), clock)
      })
    }
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket)
      socket.on('close', () => this.#sockets.delete(socket))
    })
    server.on('session', (session) => this.#opened(session))
    server.on('sessionError', (error: NodeJS.ErrnoException, session: ServerHttp2Session) => {
      // Clients in Go end a connection with a GOAWAY that nghttp2 takes for an error; their calls have ended then.
      if (!this.#spoken.has(session)) events.brokenGrpc(error.code ?? error.name, error.message)
    })
    server.on('stream', (stream, headers) => this.#take(stream, headers))
    server.on('drop', () => events.connectionDropped(CONNECTIONS_MAX))
    this.#server = server
    this.#watch.start()
    return listen(server, 'OTLP/gRPC', { host, port }, (error) => events.listenerFailed(error))
  }

  /**
   * Asks connections to end and answers new calls with UNAVAILABLE, waits until those in hand are answered, then closes
   * the listener. Uploads that have not come whole after 2 s are answered UNAVAILABLE too; after 8 s, or when `giveUp`
   * aborts, whatever connection is left is cut.
   */
  stop(giveUp: AbortSignal): Promise<void> {
    this.#draining = true
    this.#stopped ??= this.#drain(giveUp)
    return this.#stopped
  }

  async #drain(giveUp: AbortSignal): Promise<void> {
    const server = this.#server
    if (server === undefined || !server.listening) return
    const { clock } = this.#options
    this.#health.stop()
    for (const session of this.#sessions) session.close()
    await this.#inHand.drain(clock, giveUp, ({ reading }) => reading?.breakOff('cut_off'))
    await this.#watch.stop()
    await closeServer(server, clock, giveUp, () => {
      // Not their sessions, which would wait for what a client does not read.
      for (const socket of this.#sockets) socket.destroy()
    })
  }

  #opened(session: ServerHttp2Session): void {
    const { clock, requestTimeoutMs } = this.#options
    this.#sessions.add(session)
    this.#beginning.add(session, clock.monotonicMs() + requestTimeoutMs)
    session.setLocalWindowSize(SESSION_WINDOW_BYTES)
    session.once('remoteSettings', () => this.#beginning.done(session))
    session.on('close', () => {
      this.#sessions.delete(session)
      this.#beginning.done(session)
    })
  }

  #take(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    // Each way in which a stream ends badly also closes it.
    stream.on('error', () => undefined)
    if (stream.session) this.#spoken.add(stream.session as ServerHttp2Session)
    const path = headers[':path'] ?? ''
    const answer = this.#others.get(path)
    if (answer && isGrpc(headers)) void this.#takeQuestion(stream, headers, answer)
    else void this.#handle(stream, headers, this.#signals.get(path))
    if (this.draining) stream.session?.close()
  }

  /** Never rejects. A call that has not come whole in time is ended; one that watches stays as long as its client likes. */
  async #takeQuestion(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    answer: AnswerCall,
  ): Promise<void> {
    const { clock, requestTimeoutMs, events } = this.#options
    const encoding = headers['grpc-encoding'] as string | undefined
    if (encoding !== undefined && !isKnownEncoding(encoding)) {
      endCall(stream, rpcCodes.unimplemented, unknownEncoding(encoding))
      return
    }
    const onConnection = this.#questionsOf(stream)
    if (onConnection.size >= QUESTIONS_PER_CONNECTION_MAX) {
      endCall(
        stream,
        rpcCodes.resourceExhausted,
        'too many calls of this service are open on this connection',
      )
      this.#leave(stream)
      return
    }
    onConnection.add(stream)
    this.#questions.add(stream, clock.monotonicMs() + requestTimeoutMs)
    stream.on('end', () => this.#questions.keep(stream))
    stream.on('close', () => {
      onConnection.delete(stream)
      this.#questions.done(stream)
    })
    try {
      await answer(stream, encoding)
    } catch (thrown) {
      if (thrown instanceof CallError) endCall(stream, thrown.rpcCode, thrown.message)
      else {
        events.failed(requestIdOf(headers['x-request-id']), thrown)
        stream.destroy()
      }
    }
    this.#leave(stream)
  }

  /** Never rejects. */
  async #handle(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    signal: Signal | undefined,
  ): Promise<void> {
    const { events, clock } = this.#options
    const requestId = requestIdOf(headers['x-request-id'])
    const startedMs = clock.monotonicMs()
    const never = Number.POSITIVE_INFINITY
    const call: Call = { stream, headers, signal, requestId, startedMs, readUntilMs: never, lateMs: never }
    if (!this.draining) this.#inHand.add(call)
    let outcome: Outcome | undefined
    try {
      outcome = await this.#outcomeInTime(call)
      if (outcome === undefined) stream.close()
      else this.#answer(call, outcome)
    } catch (thrown) {
      events.failed(requestId, thrown)
      outcome = undefined
      stream.destroy()
    }
    this.#leave(stream)
    events.answered(signal, outcome, clock.monotonicMs() - startedMs)
    if (outcome === tooLate) await this.#untilCertain(call)
    this.#inHand.done(call)
  }

  #questionsOf({ session }: ServerHttp2Stream): Set<ServerHttp2Stream> {
    const known = session && this.#questionsByConnection.get(session)
    const questions = known ?? new Set<ServerHttp2Stream>()
    if (session && known === undefined) this.#questionsByConnection.set(session, questions)
    return questions
  }

  /** Waits for what was told to be late and may be on its way to the disk. Nobody else hears of how that ends. */
  async #untilCertain({ certain, requestId }: Call): Promise<void> {
    try {
      await certain
    } catch (thrown) {
      if (!(thrown instanceof OtlpError)) this.#options.events.failed(requestId, thrown)
    }
  }

  #leave(stream: ServerHttp2Stream): void {
    if (stream.closed) return
    const { clock, requestTimeoutMs } = this.#options
    this.#unread.add(stream, clock.monotonicMs() + requestTimeoutMs)
    stream.on('close', () => this.#unread.done(stream))
  }

  /** The outcome, or that the client's time was over before there was one: what was begun then goes on to its end. */
  async #outcomeInTime(call: Call): Promise<Outcome | undefined> {
    try {
      const reservation = new Reservation(this.#options.budget)
      const outcome = this.#outcomeOf(call, reservation).finally(() => reservation.release())
      call.certain = outcome
      if (call.lateMs === Number.POSITIVE_INFINITY) return await outcome
      const late = new Promise<Outcome>((resolve) => {
        call.onLate = () => resolve(tooLate)
      })
      return await Promise.race([outcome, late])
    } catch (thrown) {
      if (thrown instanceof OtlpError) return { kind: 'malformed', message: thrown.message }
      throw thrown
    }
  }

  /**
   * Undefined when the client went away and nobody waits for an answer.
   *
   * @throws {OtlpError} when the call is not one message.
   */
  async #outcomeOf(call: Call, reservation: Reservation): Promise<Outcome | undefined> {
    const { rateLimit, loadShedding, maxBodyBytes, events, refusal, exportPath, requestTimeoutMs } =
      this.#options
    const { stream, headers, signal, requestId, startedMs } = call
    if (this.draining) return shuttingDown
    if (this.#inHand.overfull) {
      events.inFlightFull(requestId, 'max_inflight_requests')
      return tooMany
    }
    const admission = rateLimit?.take()
    if (admission?.ok === false) {
      const { retryAfterSeconds } = admission
      events.rateLimited(requestId)
      return { kind: 'rate_limited', message: 'too many requests a second', retryAfterSeconds }
    }
    if (headers[':method'] !== 'POST') return { kind: 'wrong_method', message: 'only POST is served here' }
    if (!contentTypes.test(headers['content-type'] ?? '')) {
      return { kind: 'wrong_content_type', message: 'the Content-Type must be application/grpc' }
    }
    if (signal === undefined) return this.#unknownPath
    const encoding = headers['grpc-encoding'] as string | undefined
    if (encoding !== undefined && !isKnownEncoding(encoding)) {
      return { kind: 'unknown_encoding', message: unknownEncoding(encoding) }
    }
    // Set before anything is waited for: the caller looks at it.
    call.lateMs = startedMs + timeoutMsOf(headers['grpc-timeout'] as string | undefined)
    const shed = loadShedding?.refuses(headers)
    if (shed !== undefined) {
      events.shed(requestId, shed)
      return overloaded(shed)
    }
    const full = refusal()
    if (full !== undefined) {
      events.refusing(requestId, full)
      return { kind: 'disk_full', message: full }
    }

    call.readUntilMs = startedMs + requestTimeoutMs
    call.reading = readCall(stream, { limitBytes: maxBodyBytes, reservation })
    const body = await call.reading.body
    call.reading = undefined
    switch (body) {
      case 'gone':
        return undefined
      case 'too_late':
        return tooLate
      case 'too_slow':
        return { kind: 'too_slow', message: 'the call did not come whole in time' }
      case 'too_large':
        return { kind: 'too_large', message: tooLargeMessage(maxBodyBytes, 'sent') }
      case 'no_room':
        events.inFlightFull(requestId, 'max_inflight_bytes')
        return noRoom
      case 'cut_off':
        return shuttingDown
    }
    const unframed = unframe(body)
    events.received(signal, unframed.message.length)
    return exportPath.accept({
      signal,
      format: 'protobuf',
      contentEncoding: contentEncodingOf(unframed, encoding),
      body: unframed.message,
      tenant: 'default',
      requestId,
      reservation,
    })
  }

  #answer({ stream, signal, requestId }: Call, outcome: Outcome): void {
    if (signal !== undefined && (outcome.kind === 'accepted' || outcome.kind === 'dropped')) {
      answerMessage(stream, exportResponse(signal, 'protobuf', partialSuccess(outcome)), requestId)
      return
    }
    invariant(
      outcome.kind !== 'accepted' && outcome.kind !== 'dropped',
      'a call without a signal came to its end',
    )
    const answer = refusalAnswer(outcome, this.#options.random)
    const isGrpc = outcome.kind !== 'wrong_method' && outcome.kind !== 'wrong_content_type'
    if (isGrpc) answerStatus(stream, answer, requestId)
    else answerHttp(stream, answer, requestId)
  }

  /** Ends what has taken too long. */
  #look(): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const call of this.#inHand) {
      if (nowMs >= call.lateMs) {
        call.reading?.breakOff('too_late')
        call.onLate?.()
      } else if (nowMs >= call.readUntilMs) call.reading?.breakOff('too_slow')
    }
    this.#beginning.look(nowMs)
    this.#unread.look(nowMs)
    this.#questions.look(nowMs)
    this.#health.look()
  }
}

function isGrpc(headers: IncomingHttpHeaders): boolean {
  return headers[':method'] === 'POST' && contentTypes.test(headers['content-type'] ?? '')
}

function unknownEncoding(encoding: string): string {
  return `grpc-encoding is ${quoted(encoding)}; known are ${acceptedEncodings}`
}
