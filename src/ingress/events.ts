import type { Counter, Histogram } from 'prom-client'
import type { Failure } from '../foundation/failure.ts'
import { type Signal, signals } from '../otlp/signal.ts'
import type { StagedRow } from '../queue/copy-format.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Shed } from './load-shedding.ts'
import type { Outcome } from './outcome.ts'
import type { HandshakeFault } from './tls.ts'

/** The counters of one signal, bound once, so that no request makes objects of labels. */
interface SignalCounters {
  readonly answered: Map<Outcome['kind'] | 'gone', Counter.Internal>
  readonly seconds: Histogram.Internal<string>
  readonly items: Counter.Internal
  readonly bytes: Counter.Internal
  readonly repaired: Counter.Internal
  readonly stagedRows: Counter.Internal
  readonly stagedItems: Counter.Internal
  readonly stagedBytes: Counter.Internal
}

/** What the ingress of one transport tells the log and the metrics; the names of the events are the docs'. */
export class IngressEvents {
  readonly #log: Log
  readonly #metrics: Metrics
  readonly #transport: 'http' | 'grpc'
  readonly #bySignal = new Map<Signal | 'none', SignalCounters>()

  constructor(options: { log: Log; metrics: Metrics; transport: 'http' | 'grpc' }) {
    this.#log = options.log
    this.#metrics = options.metrics
    this.#transport = options.transport
    for (const signal of Object.keys(signals)) this.#bySignal.set(signal as Signal, this.#bind(signal))
    this.#bySignal.set('none', this.#bind('none'))
  }

  /** A request has ended; `outcome` is undefined when its client went away before its body was whole. */
  answered(signal: Signal | undefined, outcome: Outcome | undefined, durationMs: number): void {
    const counters = this.#of(signal)
    const kind = outcome?.kind ?? 'gone'
    let counter = counters.answered.get(kind)
    if (counter === undefined) {
      const labels = { signal: signal ?? 'none', transport: this.#transport, outcome: kind }
      counter = this.#metrics.requests.labels(labels)
      counters.answered.set(kind, counter)
    }
    counter.inc()
    counters.seconds.observe(durationMs / 1000)
  }

  /** A body has come, as it was on the wire. */
  received(signal: Signal, bytes: number): void {
    this.#of(signal).bytes.inc(bytes)
  }

  /** A body could be read to the bottom. */
  walked(signal: Signal, items: number, repairedStrings: number): void {
    const counters = this.#of(signal)
    counters.items.inc(items)
    if (repairedStrings > 0) counters.repaired.inc(repairedStrings)
  }

  /** A row was committed. */
  staged(row: StagedRow): void {
    const counters = this.#of(row.signal)
    counters.stagedRows.inc()
    counters.stagedItems.inc(row.items)
    counters.stagedBytes.inc(row.payload.length)
  }

  rateLimited(requestId: string): void {
    this.#metrics.rateLimited.inc()
    this.#log.warn('rate_limited', { reason: 'limit_exceeded', request_id: requestId })
  }

  queueSaturated(requestId: string, signal: Signal): void {
    this.#metrics.queueSaturated.inc()
    this.#log.warn('queue_saturated', { reason: 'queue_full_reject', request_id: requestId, signal })
  }

  loadShedding(requestId: string, signal: Signal, policy: 'drop' | 'sample', items: number): void {
    const labels = { signal, reason: `overflow_${policy}` }
    this.#metrics.droppedRequests.inc(labels)
    this.#metrics.droppedItems.inc(labels, items)
    const reason = 'queue_full_drop_or_sample'
    this.#log.warn('load_shedding', { reason, request_id: requestId, signal, policy, items })
  }

  /** A request was refused under overload, before its body was read. */
  shed(requestId: string, { reason, priority }: Shed): void {
    this.#metrics.shedRequests.inc({ reason, priority })
    this.#log.warn('load_shedding', { reason, request_id: requestId, priority })
  }

  /** The database did not take a request in time; its sender was told to come again. */
  stagingAway(requestId: string, error: Failure): void {
    this.#log.warn('staging_unavailable', { reason: error.code ?? error.kind, request_id: requestId, error })
  }

  /** The database refused this very request. */
  refusedByStaging(requestId: string, error: Failure): void {
    this.#log.warn('staging_refused', { reason: error.code ?? error.kind, request_id: requestId, error })
  }

  /** There is no room for another request: for its bytes, or for itself. */
  inFlightFull(
    requestId: string,
    reason: 'max_inflight_bytes' | 'max_inflight_requests' | 'large_bodies',
  ): void {
    this.#log.warn('in_flight_full', { reason, request_id: requestId })
  }

  refusing(requestId: string, reason: string): void {
    this.#log.warn('staging_unavailable', { reason, request_id: requestId })
  }

  /** An error that nobody expected. The request was answered so that its sender comes again. */
  failed(requestId: string, error: unknown): void {
    this.#log.error('request_failed', { reason: 'bug', request_id: requestId, error })
  }

  /** Something came that was not HTTP. */
  brokenHttp(requestId: string, code: string, message: string): void {
    this.#log.info('http_malformed', { reason: code, request_id: requestId, message })
  }

  /** Something came that was not gRPC. */
  brokenGrpc(code: string, message: string): void {
    this.#log.info('grpc_malformed', { reason: code, message })
  }

  /** A client could not agree with us on TLS. */
  handshakeFailed({ code, message }: HandshakeFault): void {
    this.#log.info('tls_handshake_failed', { reason: code, transport: this.#transport, message })
  }

  /** The listener could not take a connection; it goes on listening. */
  listenerFailed(error: Error): void {
    this.#log.error('listener_failed', { reason: 'accept', error })
  }

  connectionDropped(connectionsMax: number): void {
    this.#log.warn('connection_dropped', { reason: 'too_many_connections', connections_max: connectionsMax })
  }

  #of(signal: Signal | undefined): SignalCounters {
    const counters = this.#bySignal.get(signal ?? 'none')
    return counters as SignalCounters // The constructor bound every signal.
  }

  #bind(signal: string): SignalCounters {
    const metrics = this.#metrics
    return {
      answered: new Map(),
      seconds: metrics.requestDuration.labels({ signal, transport: this.#transport }),
      items: metrics.requestItems.labels({ signal }),
      bytes: metrics.requestBytes.labels({ signal }),
      repaired: metrics.repairedStrings.labels({ signal }),
      stagedRows: metrics.stagedRows.labels({ signal }),
      stagedItems: metrics.stagedItems.labels({ signal }),
      stagedBytes: metrics.stagedBytes.labels({ signal }),
    }
  }
}
