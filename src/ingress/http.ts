import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https'
import type { Socket } from 'node:net'
import type { ByteBudget } from '../foundation/byte-budget.ts'
import type { Clock } from '../foundation/clock.ts'
import { invariant } from '../foundation/failure.ts'
import type { Service } from '../foundation/service.ts'
import { exportResponse, type Format, statusBody } from '../otlp/answer.ts'
import { type Signal, signals } from '../otlp/signal.ts'
import { BrokenHttp } from './broken-http.ts'
import { formatOf, mediaTypes } from './content-type.ts'
import { answerHeaders, type Cors, isPreflight, preflightHeaders, type RawHeaders } from './cors.ts'
import type { IngressEvents } from './events.ts'
import { type ExportPath, noRoom, tooLargeMessage } from './export.ts'
import { plainRefusal, requireFirstBytes, tlsStart } from './first-bytes.ts'
import { InHand, shuttingDown, tooMany } from './in-hand.ts'
import {
  addressOf,
  closeServer,
  dropBeyondMax,
  endSocket,
  type ListeningAddress,
  listen,
  listenOnSocket,
} from './listening.ts'
import { type LoadShedding, overloaded } from './load-shedding.ts'
import { type Outcome, partialSuccess, refusalAnswer } from './outcome.ts'
import type { RateLimit } from './rate-limit.ts'
import { type BrokenOff, breakOffReading, declaredLength, readBody } from './read-body.ts'
import { awaitsContinue, type Reply, reply } from './reply.ts'
import { requestIdOf } from './request-id.ts'
import { Reservation } from './reservation.ts'
import { handshakeFault, type TlsCertificate } from './tls.ts'

/** What the OTLP/HTTP listener needs. */
export interface HttpIngressOptions {
  host: string
  /** 0 for any free port; `address` tells which. */
  port: number
  /** The path of a Unix socket on which the same is taken in plain HTTP; undefined for none. */
  socketPath: string | undefined
  /** Undefined for HTTP without TLS. */
  tls: TlsCertificate | undefined
  /** The signals that have a path here. */
  signals: readonly Signal[]
  exportPath: ExportPath
  /** Undefined admits everything. */
  rateLimit: RateLimit | undefined
  /** Undefined admits everything. */
  loadShedding: LoadShedding | undefined
  /** The bytes that all requests in flight may hold together. */
  budget: ByteBudget
  maxBodyBytes: number
  /** A request that has not come whole by then is cut off: it holds memory for nobody. */
  requestTimeoutMs: number
  /** Which pages may send from a browser; undefined for those of this very origin only. */
  cors: Cors | undefined
  /** The status for what the policies `drop` and `sample` threw away. */
  droppedStatus: 200 | 202
  /** Why nothing can be taken now, in a sentence for the sender; undefined when all is well. Asked for each request. */
  refusal: () => string | undefined
  events: IngressEvents
  clock: Clock
  random: () => number
}

/**
 * Idle connections outlive the pauses of every sender and the idle time of every common load balancer (Google's
 * is the longest, 600 s): the side that closes first must not be ours, or a request meets a closed connection.
 */
const KEEP_ALIVE_MS = 620_000
/** How often is looked for overdue requests: at least so often, and ten times within the timeout. */
const CHECK_MS_MAX = 5_000
const CONNECTIONS_MAX = 10_000
const ALLOWED_METHODS = 'OPTIONS, POST'

/**
 * The OTLP/HTTP listener, on Node's own requests and answers. The few paths need no router: in front of unpacking and walking 10
 * spans, Hono and its adapter would be 5 % of the CPU time of this path (docs/decisions/0021).
 *
 * **Maintained invariant**: each request in `#inHand` is answered, or its client has gone, before it leaves.
 */
export class HttpIngress implements Service {
  readonly name = 'http ingress'
  readonly #options: HttpIngressOptions
  readonly #unknownPath: Outcome
  readonly #inHand = new InHand<ServerResponse>()
  readonly #servers: Server[] = []
  /** The connections below TLS: one that has not agreed on it yet is unknown to the server of HTTP. */
  readonly #unsecured = new Set<Socket>()
  #stopped: Promise<void> | undefined

  constructor(options: HttpIngressOptions) {
    this.#options = options
    const paths = options.signals.map((signal) => signals[signal].path).join(', ')
    this.#unknownPath = { kind: 'unknown_path', message: `there is nothing here; OTLP is taken at ${paths}` }
  }

  /** Where it listens. */
  get address(): ListeningAddress {
    return addressOf(this.#servers[0])
  }

  /** True from the moment that `stop` was called: nothing new is taken. */
  get draining(): boolean {
    return this.#stopped !== undefined
  }

  /**
   * Resolves when it listens everywhere.
   *
   * @throws Failure `configuration` when an address cannot be had.
   */
  async start(): Promise<void> {
    const { host, port, socketPath, tls, events } = this.#options
    const onError = (error: Error) => events.listenerFailed(error)
    await listen(this.#newServer(tls), 'OTLP/HTTP', { host, port }, onError)
    if (socketPath !== undefined) {
      await listenOnSocket(this.#newServer(undefined), 'OTLP/HTTP', socketPath, onError)
    }
  }

  #newServer(tls: TlsCertificate | undefined): Server {
    const { requestTimeoutMs, events, clock } = this.#options
    const options = {
      keepAliveTimeout: KEEP_ALIVE_MS,
      headersTimeout: requestTimeoutMs,
      requestTimeout: requestTimeoutMs,
      // Node's own refusal would have no sentence, no request id and no line in the log.
      requireHostHeader: false,
      connectionsCheckingInterval: Math.min(CHECK_MS_MAX, Math.ceil(requestTimeoutMs / 10)),
      keepAlive: true,
      keepAliveInitialDelay: 60_000,
    }
    const server = tls ? createTlsServer({ ...tls.serverOptions, ...options }) : createServer(options)
    // A client may end its side when it has sent its request, and still wants the answer (RFC 9112, section 9.6). Not so
    // within TLS, where an end that comes during the handshake would not be told from one that may be waited for.
    Object.assign(server, { httpAllowHalfOpen: true })
    dropBeyondMax(server, CONNECTIONS_MAX)
    if (tls) this.#secure(server as TlsServer, tls)
    const listener = this.#listener()
    server.on('request', listener)
    // Without these two Node itself tells the client to go on, or answers 417, before anybody has looked.
    server.on('checkContinue', listener)
    server.on('checkExpectation', listener)
    server.on('connect', (_, socket) => {
      endSocket(
        socket as Socket,
        plainRefusal('only POST is served here', { status: '405 Method Not Allowed' }),
        clock,
      )
    })
    const brokenHttp = new BrokenHttp({ events, clock, inHand: this.#inHand })
    server.on('clientError', (error, socket) => brokenHttp.answer(error, socket as Socket))
    server.on('drop', () => events.connectionDropped(CONNECTIONS_MAX))
    this.#servers.push(server)
    return server
  }

  /** What TLS needs around a server of HTTP: whoever comes without it, or fails at it, is no broken HTTP. */
  #secure(server: TlsServer, tls: TlsCertificate): void {
    const { requestTimeoutMs, events, clock } = this.#options
    tls.serve(server)
    requireFirstBytes(server, {
      ...tlsStart,
      onRefused: (objection) => events.brokenHttp(requestIdOf(undefined), 'wrong_protocol', objection),
      timeoutMs: requestTimeoutMs,
      clock,
    })
    server.on('connection', (socket: Socket) => {
      this.#unsecured.add(socket)
      socket.once('close', () => this.#unsecured.delete(socket))
    })
    server.removeAllListeners('tlsClientError')
    server.on('tlsClientError', (error, socket) => {
      events.handshakeFailed(handshakeFault(error, socket))
      socket.destroy()
    })
  }

  /**
   * Refuses new requests with 503 and `Connection: close`, waits until those in hand are answered, then closes the
   * listener. Uploads that have not come whole after 2 s are answered 503 too; after 8 s, or when `giveUp` aborts,
   * whatever connection is left is cut.
   */
  stop(giveUp: AbortSignal): Promise<void> {
    this.#stopped ??= this.#drain(giveUp)
    return this.#stopped
  }

  async #drain(giveUp: AbortSignal): Promise<void> {
    const servers = this.#servers.filter(({ listening }) => listening)
    if (servers.length === 0) return
    const { clock } = this.#options
    await this.#inHand.drain(clock, giveUp, ({ req }) => breakOffReading(req.socket, 'cut_off'))
    const closing = servers.map((server) =>
      closeServer(server, clock, giveUp, () => {
        server.closeAllConnections()
        for (const socket of this.#unsecured) socket.destroy()
      }),
    )
    await Promise.all(closing)
  }

  #listener(): (incoming: IncomingMessage, outgoing: ServerResponse) => void {
    const bySignal = new Map<string | undefined, Signal>()
    for (const signal of this.#options.signals) bySignal.set(signals[signal].path, signal)
    return (incoming, outgoing) => {
      const path = pathOf(incoming)
      const handled =
        path === undefined
          ? this.#refuseTarget(incoming, outgoing)
          : this.#handle(incoming, outgoing, bySignal.get(path))
      handled.catch((thrown: unknown) => {
        this.#options.events.failed(requestIdOf(incoming.headers['x-request-id']), thrown)
        outgoing.destroy()
      })
    }
  }

  #refuseTarget(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const outcome: Outcome = { kind: 'malformed', message: 'the request target and Host make no URL' }
    this.#options.events.answered(undefined, outcome, 0)
    const requestId = requestIdOf(incoming.headers['x-request-id'])
    return this.#answer(incoming, outgoing, undefined, requestId, outcome)
  }

  async #handle(
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    signal: Signal | undefined,
  ): Promise<void> {
    const { events, budget, clock, cors } = this.#options
    if (incoming.method === 'OPTIONS') {
      const preflight = cors && isPreflight(incoming) ? preflightHeaders(cors, incoming) : undefined
      if (preflight ?? signal ?? incoming.url === '*')
        return this.#answerOptions(incoming, outgoing, preflight)
    }
    const requestId = requestIdOf(incoming.headers['x-request-id'])
    const startedMs = clock.monotonicMs()
    if (!this.draining) this.#inHand.add(outgoing)
    let outcome: Outcome | undefined
    try {
      const reservation = new Reservation(budget)
      try {
        outcome = await this.#outcomeOf(incoming, outgoing, signal, requestId, reservation)
      } finally {
        reservation.release()
      }
      if (outcome === undefined) outgoing.destroy()
      else await this.#answer(incoming, outgoing, signal, requestId, outcome)
    } catch (thrown) {
      events.failed(requestId, thrown)
      outcome = undefined
      outgoing.destroy()
    } finally {
      this.#inHand.done(outgoing)
    }
    events.answered(signal, outcome, clock.monotonicMs() - startedMs)
  }

  /** Undefined when the client went away and nobody waits for an answer. */
  async #outcomeOf(
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    signal: Signal | undefined,
    requestId: string,
    reservation: Reservation,
  ): Promise<Outcome | undefined> {
    const { rateLimit, loadShedding, budget, maxBodyBytes, events, refusal, exportPath } = this.#options
    if (this.draining) return shuttingDown
    if (this.#inHand.overfull) {
      events.inFlightFull(requestId, 'max_inflight_requests')
      return tooMany
    }
    if (incoming.headers.host === undefined && incoming.httpVersion === '1.1') {
      return { kind: 'malformed', message: 'a request of HTTP/1.1 must have a Host' }
    }
    const admission = rateLimit?.take()
    if (admission?.ok === false) {
      const { retryAfterSeconds } = admission
      events.rateLimited(requestId)
      return { kind: 'rate_limited', message: 'too many requests a second', retryAfterSeconds }
    }
    if (signal === undefined) return this.#unknownPath
    if (incoming.method !== 'POST') return { kind: 'wrong_method', message: 'only POST is served here' }
    const format = formatOf(incoming.headers['content-type'])
    if (format === undefined) {
      return {
        kind: 'wrong_content_type',
        message: `the Content-Type must be ${mediaTypes.protobuf} or ${mediaTypes.json}`,
      }
    }
    const shed = loadShedding?.refuses(incoming.headers)
    if (shed !== undefined) {
      events.shed(requestId, shed)
      return overloaded(shed)
    }
    const full = refusal()
    if (full !== undefined) {
      events.refusing(requestId, full)
      return { kind: 'disk_full', message: full }
    }
    if (
      awaitsContinue(incoming) &&
      (declaredLength(incoming) ?? 0) <= Math.min(maxBodyBytes, budget.freeBytes)
    ) {
      outgoing.writeContinue()
    }
    const body = await readBody(incoming, { limitBytes: maxBodyBytes, reservation })
    if (body === 'gone') return undefined
    if (body === 'too_large') return { kind: 'too_large', message: tooLargeMessage(maxBodyBytes, 'sent') }
    if (body === 'no_room') {
      events.inFlightFull(requestId, 'max_inflight_bytes')
      return noRoom
    }
    if (typeof body === 'string') return brokenOff(body)
    events.received(signal, body.length)
    return exportPath.accept({
      signal,
      format,
      contentEncoding: incoming.headers['content-encoding'],
      body,
      tenant: 'default',
      requestId,
      reservation,
    })
  }

  /**
   * Says with 204 what may be sent (RFC 9110, section 9.3.7). It takes nothing, so no policy stands before it, nor does
   * a drain: a browser that is refused here sees a failure without a status, and what it wants to send may go elsewhere.
   */
  #answerOptions(incoming: IncomingMessage, outgoing: ServerResponse, preflight?: RawHeaders): Promise<void> {
    const { cors, clock } = this.#options
    const answer = {
      status: 204,
      contentType: mediaTypes.json,
      body: undefined,
      requestId: requestIdOf(incoming.headers['x-request-id']),
      allow: preflight === undefined ? ALLOWED_METHODS : undefined,
      cors: preflight ?? (cors && answerHeaders(cors, incoming.headers.origin)),
      close: this.draining,
    }
    return reply(incoming, outgoing, answer, clock)
  }

  #answer(
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    signal: Signal | undefined,
    requestId: string,
    outcome: Outcome,
  ): Promise<void> {
    // Without a format of ours to answer in, JSON is what a person reads.
    const format = formatOf(incoming.headers['content-type']) ?? 'json'
    const { cors } = this.#options
    const answer = {
      ...this.#said(outcome, signal, format),
      contentType: mediaTypes[format],
      requestId,
      close: this.draining,
      cors: cors && answerHeaders(cors, incoming.headers.origin),
    }
    return reply(incoming, outgoing, answer, this.#options.clock)
  }

  /** What the answer to an outcome says, in the request's own format. */
  #said(
    outcome: Outcome,
    signal: Signal | undefined,
    format: Format,
  ): Pick<Reply, 'status' | 'body' | 'retryAfterSeconds' | 'allow'> {
    if (outcome.kind === 'accepted' || outcome.kind === 'dropped') {
      invariant(signal !== undefined, 'a request without a signal came to its end')
      const status = outcome.kind === 'accepted' ? 200 : this.#options.droppedStatus
      return { status, body: exportResponse(signal, format, partialSuccess(outcome)) }
    }
    const { httpStatus, rpcCode, message, retryAfterSeconds } = refusalAnswer(outcome, this.#options.random)
    return {
      status: httpStatus,
      body: statusBody(format, rpcCode, message),
      retryAfterSeconds,
      allow: outcome.kind === 'wrong_method' ? ALLOWED_METHODS : undefined,
    }
  }
}

/** What a sender is told whose body was not read to its end. */
function brokenOff(fault: BrokenOff): Outcome {
  switch (fault) {
    case 'bad_framing':
      return { kind: 'malformed', message: 'the chunks of the body are not HTTP' }
    case 'cut_short':
      return { kind: 'malformed', message: 'the connection ended in the middle of the body' }
    case 'too_slow':
      return { kind: 'too_slow', message: 'the body did not come in time' }
    case 'cut_off':
      return shuttingDown
  }
}

/** A Host of names, numbers and a port: with it, a path is a path. */
const plainHost = /^[\w.-]+(?::\d{1,5})?$/

/** The path that a request is for (RFC 9112, section 3.2); undefined when its target and Host make no URL. */
function pathOf({ url = '', headers: { host = 'localhost' } }: IncomingMessage): string | undefined {
  if (plainPath.test(url) && plainHost.test(host)) return url
  return URL.parse(url, `http://${host}`)?.pathname
}

/** A path of which no URL would make another one. */
const plainPath = /^(?:\/[\w-]+)+$/
