import type { Clock } from '../foundation/clock.ts'
import type { Failure } from '../foundation/failure.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'

/** `closed`: everything passes. `open`: nothing is begun. `half_open`: one batch goes first. */
export type CircuitState = 'closed' | 'open' | 'half_open'

/** As `sluice_circuit_state` shows them. */
const stateNumbers: Record<CircuitState, number> = { closed: 0, half_open: 1, open: 2 }

export interface CircuitBreakerOptions {
  /** Batches in a row that the sink could not take. */
  failureThreshold: number
  resetSeconds: number
  clock: Clock
  log: Log
  metrics: Metrics
}

/**
 * Keeps the pollers from claiming batch after batch into an object store that takes none: after `failureThreshold` failures
 * in a row it opens and nothing is claimed for `resetSeconds`; then a single batch goes first. If that is stored the circuit
 * closes, if not it opens again. A batch that was in hand when it opened and is stored all the same closes it, too.
 */
export class CircuitBreaker {
  readonly #options: CircuitBreakerOptions
  #state: CircuitState = 'closed'
  #failures = 0
  #lastFailure: Failure | undefined
  #openedWallMs = 0
  /** Since it was closed last, however often it was half open meanwhile. */
  #openedMs = 0
  #resetAtMs = 0
  #lastSuccessMs = Number.NEGATIVE_INFINITY
  #closed = new AbortController()

  constructor(options: CircuitBreakerOptions) {
    this.#options = options
    options.metrics.watch('circuitState', () => stateNumbers[this.#state])
  }

  get state(): CircuitState {
    return this.#state
  }

  /** For whoever asks for health: undefined while it is closed, else since when it is not, and why. */
  get complaint(): string | undefined {
    if (this.#state === 'closed') return undefined
    const since = new Date(this.#openedWallMs).toISOString()
    const why = this.#lastFailure?.message ?? 'unknown'
    return `the circuit is ${this.#state.replace('_', ' ')} since ${since}; the last failure: ${why}`
  }

  /** The sink took a batch. */
  succeeded(): void {
    const { clock, log } = this.#options
    this.#failures = 0
    this.#lastSuccessMs = clock.monotonicMs()
    if (this.#state === 'closed') return
    this.#state = 'closed'
    log.info('circuit_closed', {
      sink: 'store',
      seconds: Math.round((this.#lastSuccessMs - this.#openedMs) / 1000),
    })
    this.#closed.abort()
    this.#closed = new AbortController()
  }

  /** The sink could not take a batch, and the batch is not to blame. */
  failed(failure: Failure): void {
    const { clock, log, failureThreshold, resetSeconds } = this.#options
    this.#failures++
    this.#lastFailure = failure
    if (this.#state === 'open') return
    if (this.#state === 'closed') {
      if (this.#failures < failureThreshold) return
      this.#openedMs = clock.monotonicMs()
      this.#openedWallMs = clock.wallMs()
    }
    this.#state = 'open'
    this.#resetAtMs = clock.monotonicMs() + resetSeconds * 1000
    log.error('circuit_open', {
      sink: 'store',
      reason: failure.kind,
      failures: this.#failures,
      reset_seconds: resetSeconds,
      error: failure,
    })
  }

  /** Resolves when something may be claimed, or when `stopping` aborts. */
  async wait(stopping: AbortSignal): Promise<void> {
    const { clock, log } = this.#options
    if (this.#state !== 'open') return
    const leftMs = this.#resetAtMs - clock.monotonicMs()
    if (leftMs > 0) await clock.sleep(leftMs, AbortSignal.any([stopping, this.#closed.signal]))
    if (stopping.aborted || this.#state !== 'open' || clock.monotonicMs() < this.#resetAtMs) return
    this.#state = 'half_open'
    log.info('circuit_half_open', { sink: 'store' })
  }

  succeededWithin(ms: number): boolean {
    return this.#options.clock.monotonicMs() - this.#lastSuccessMs <= ms
  }
}
