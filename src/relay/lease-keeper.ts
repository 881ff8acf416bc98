import type { Clock } from '../foundation/clock.ts'
import { Periodic } from '../foundation/periodic.ts'
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
  readonly #renewals: Periodic
  readonly #expiries: Periodic

  constructor(options: LeaseKeeperOptions) {
    this.#options = options
    const { clock, held, leaseSeconds } = options
    const intervalMs = (leaseSeconds * 1000) / 3
    let renewed = true
    this.#renewals = new Periodic({
      clock,
      // While the database is away there are a few tries left before the leases run out.
      pauseMs: () => (renewed ? intervalMs : intervalMs / 10),
      work: async () => {
        renewed = await this.#renewAll()
      },
    })
    // Apart from the renewals: one that hangs must not keep a lease that ran out from being noticed.
    this.#expiries = new Periodic({
      clock,
      pauseMs: () => intervalMs / 10,
      work: async () => {
        const nowMs = clock.monotonicMs()
        for (const one of held) if (nowMs >= one.trustedUntilMs) one.lost.abort()
      },
    })
  }

  async start(): Promise<void> {
    this.#renewals.start()
    this.#expiries.start()
  }

  async stop(): Promise<void> {
    await Promise.all([this.#renewals.stop(), this.#expiries.stop()])
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
