import type { Clock } from '../foundation/clock.ts'
import type { Failure } from '../foundation/failure.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'

/** `closed`: everything passes. `open`: nothing is begun. `half_open`: one batch goes first. */
export type CircuitState = 'closed' | 'open' | 'half_open'

/** As `sluice_circuit_state` shows them. */
const stateNumbers: Record<CircuitState, number> = { closed: 0, half_open: 1, open: 2 }

/** Where a batch goes: its objects to the store, then their names into the catalog. */
export type Sink = 'store' | 'catalog'

export interface CircuitBreakerOptions {
  sink: Sink
  /** Batches in a row that the sink could not take. */
  failureThreshold: number
  resetSeconds: number
  clock: Clock
  log: Log
  metrics: Metrics
}

/**
 * Keeps the pollers from claiming batch after batch for a sink that takes none: after `failureThreshold` failures
 * in a row it opens and nothing is claimed for `resetSeconds`; then a single batch goes first. If the
 * sink takes that the circuit closes, if not it opens again. A batch that was in hand when it opened and is taken all the
 * same closes it, too.
 */
export class CircuitBreaker {
  readonly #options: CircuitBreakerOptions
  #state: CircuitState = 'closed'
  #failures = 0
  #lastFailure: Failure | undefined
  #lastFailureMs = Number.NEGATIVE_INFINITY
  #openedWallMs = 0
  /** Since it was closed last, however often it was half open meanwhile. */
  #openedMs = 0
  #resetAtMs = 0
  #lastSuccessMs = Number.NEGATIVE_INFINITY
  #closed = new AbortController()

  constructor(options: CircuitBreakerOptions) {
    this.#options = options
    this.#enter('closed')
  }

  get state(): CircuitState {
    return this.#state
  }

  /** For whoever asks for health: undefined while it is closed, else since when it is not, and why. */
  get complaint(): string | undefined {
    if (this.#state === 'closed') return undefined
    const since = new Date(this.#openedWallMs).toISOString()
    const why = this.#lastFailure?.sentence ?? 'unknown'
    return `the circuit is ${this.#state.replace('_', ' ')} since ${since}; the last failure: ${why}`
  }

  /** The sink took a batch, or refused it for its data: in both cases it is there. */
  succeeded(): void {
    const { sink, clock, log } = this.#options
    this.#failures = 0
    this.#lastSuccessMs = clock.monotonicMs()
    if (this.#state === 'closed') return
    this.#enter('closed')
    log.info('circuit_closed', {
      sink,
      seconds: Math.round((this.#lastSuccessMs - this.#openedMs) / 1000),
    })
    this.#closed.abort()
    this.#closed = new AbortController()
  }

  /**
   * The sink could not take a batch, and the batch is not to blame.
   *
   * @param begunMs when the try began (monotonic): tries that were under way together and fail count once.
   */
  failed(failure: Failure, begunMs: number): void {
    const { sink, clock, log, failureThreshold, resetSeconds } = this.#options
    if (begunMs < this.#lastFailureMs) return
    this.#lastFailureMs = clock.monotonicMs()
    this.#failures++
    this.#lastFailure = failure
    if (this.#state === 'open') return
    if (this.#state === 'closed') {
      if (this.#failures < failureThreshold) return
      this.#openedMs = clock.monotonicMs()
      this.#openedWallMs = clock.wallMs()
    }
    this.#enter('open')
    this.#resetAtMs = clock.monotonicMs() + resetSeconds * 1000
    log.error('circuit_open', {
      sink,
      reason: failure.kind,
      failures: this.#failures,
      since: new Date(this.#openedWallMs).toISOString(),
      reset_seconds: resetSeconds,
      error: failure,
    })
  }

  /** Resolves when something may be claimed, or when `stopping` aborts. */
  async wait(stopping: AbortSignal): Promise<void> {
    const { sink, clock, log } = this.#options
    if (this.#state !== 'open') return
    const leftMs = this.#resetAtMs - clock.monotonicMs()
    if (leftMs > 0) await clock.sleep(leftMs, AbortSignal.any([stopping, this.#closed.signal]))
    if (stopping.aborted || this.#state !== 'open' || clock.monotonicMs() < this.#resetAtMs) return
    this.#enter('half_open')
    log.info('circuit_half_open', { sink })
  }

  succeededWithin(ms: number): boolean {
    return this.#options.clock.monotonicMs() - this.#lastSuccessMs <= ms
  }

  #enter(state: CircuitState): void {
    const { sink, metrics } = this.#options
    this.#state = state
    metrics.circuitState.labels({ sink }).set(stateNumbers[state])
  }
}

/** The circuits of both sinks: a batch needs both. */
export class Circuits {
  readonly store: CircuitBreaker
  readonly catalog: CircuitBreaker

  constructor(options: Omit<CircuitBreakerOptions, 'sink'>) {
    this.store = new CircuitBreaker({ ...options, sink: 'store' })
    this.catalog = new CircuitBreaker({ ...options, sink: 'catalog' })
  }

  get areClosed(): boolean {
    return this.store.state === 'closed' && this.catalog.state === 'closed'
  }

  get isOneOpen(): boolean {
    return this.store.state === 'open' || this.catalog.state === 'open'
  }

  /** Resolves when a batch may be claimed, or when `stopping` aborts. */
  async wait(stopping: AbortSignal): Promise<void> {
    await Promise.all([this.store.wait(stopping), this.catalog.wait(stopping)])
  }
}
