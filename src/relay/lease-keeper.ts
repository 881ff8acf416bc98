import type { Clock } from '../foundation/clock.ts'
import type { Service } from '../foundation/service.ts'
import type { BatchId, Lease } from '../queue/batch.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { HeldBatch } from './held-batch.ts'

export interface LeaseKeeperOptions {
  held: ReadonlySet<HeldBatch>
  leaseSeconds: number
  renew: (leases: readonly Lease[]) => Promise<Set<BatchId>>
  clock: Clock
  log: Log
  metrics: Metrics
}

/** The part of a lease that is not trusted: the database's clock and ours may run at slightly different speeds. */
const MARGIN_SHARE = 0.1

/** Until when a lease asked for at `askedMs` (monotonic) holds for certain. */
export function trustedUntilMs(askedMs: number, leaseSeconds: number): number {
  return askedMs + leaseSeconds * 1000 * (1 - MARGIN_SHARE)
}

/**
 * Renews every lease of this process at a third of its length, in one statement. A batch whose lease is somebody
 * else's, or has run out while the database was away, is aborted: whoever works on it must stop and touch nothing.
 */
export class LeaseKeeper implements Service {
  readonly name = 'lease keeper'
  readonly #options: LeaseKeeperOptions
  readonly #stopping = new AbortController()
  #loops: Promise<unknown> | undefined

  constructor(options: LeaseKeeperOptions) {
    this.#options = options
  }

  async start(): Promise<void> {
    this.#loops = Promise.all([this.#keepRenewing(), this.#keepAborting()])
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#loops
  }

  async #keepRenewing(): Promise<void> {
    const { clock, leaseSeconds } = this.#options
    const intervalMs = (leaseSeconds * 1000) / 3
    let waitMs = intervalMs
    while (!this.#stopping.signal.aborted) {
      await clock.sleep(waitMs, this.#stopping.signal)
      if (this.#stopping.signal.aborted) return
      const renewed = await this.#renewAll()
      // While the database is away there are a few tries left before the leases run out.
      waitMs = renewed ? intervalMs : intervalMs / 10
    }
  }

  /** Apart from the renewals: a renewal that hangs must not keep a lease that ran out from being noticed. */
  async #keepAborting(): Promise<void> {
    const { clock, held, leaseSeconds } = this.#options
    while (!this.#stopping.signal.aborted) {
      await clock.sleep((leaseSeconds * 1000) / 30, this.#stopping.signal)
      const nowMs = clock.monotonicMs()
      for (const one of held) if (nowMs >= one.trustedUntilMs) one.lost.abort()
    }
  }

  async #renewAll(): Promise<boolean> {
    const { clock, held, leaseSeconds, renew, log, metrics } = this.#options
    const batches = [...held].filter((one) => !one.lost.signal.aborted)
    if (batches.length === 0) return true
    const askedMs = clock.monotonicMs()
    try {
      const kept = await renew(batches.map((one) => one.batch))
      for (const one of batches) {
        if (kept.has(one.batch.batchId)) one.trustedUntilMs = trustedUntilMs(askedMs, leaseSeconds)
        // Settled a moment ago, or taken over: in both cases nothing of it may be touched any more.
        else if (held.has(one)) one.lost.abort()
      }
      metrics.leaseRenewals.inc(kept.size)
      return true
    } catch (error) {
      log.warn('lease_renewal_failed', { error, batches: batches.length })
      return false
    }
  }
}
