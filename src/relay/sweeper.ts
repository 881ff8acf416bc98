import type { Clock } from '../foundation/clock.ts'
import { Periodic } from '../foundation/periodic.ts'
import type { Service } from '../foundation/service.ts'
import type { AbandonedBatch } from '../queue/abandoned.ts'
import type { BatchId } from '../queue/batch.ts'
import { parseObjectKey } from '../sink/object-key.ts'
import type { ObjectStore } from '../sink/object-store.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'

export interface SweeperOptions {
  findAbandoned: (ageSeconds: number, limit: number) => Promise<AbandonedBatch[]>
  markSwept: (batchId: BatchId) => Promise<void>
  forgetAbandoned: (batchId: BatchId) => Promise<void>
  store: ObjectStore
  keyPrefix: string
  /** A put may take half of it, so this is two put deadlines. */
  leaseSeconds: number
  clock: Clock
  random: () => number
  log: Log
  metrics: Metrics
}

const BATCHES_AT_ONCE = 100

/**
 * Deletes what batches left in the store that were split, released or buried. Only keys of such batches, only after
 * two put deadlines, and only if the catalog names none of them; then it looks a second time for a late put. A key
 * holds its batch's id, and the row of an abandoned batch is gone, so no later settle can ever name the key.
 */
export class Sweeper implements Service {
  readonly name = 'sweeper'
  readonly #options: SweeperOptions
  readonly #looks: Periodic

  constructor(options: SweeperOptions) {
    this.#options = options
    const { clock, random, leaseSeconds, log } = options
    this.#looks = new Periodic({
      clock,
      // Jittered: the workers that started together do not all look at once.
      pauseMs: () => leaseSeconds * 1000 * (0.5 + random() / 2),
      work: async (stopping) => {
        try {
          await this.sweep(stopping)
        } catch (error) {
          if (!stopping.aborted) log.warn('sweep_failed', { error })
        }
      },
    })
  }

  async start(): Promise<void> {
    this.#looks.start()
  }

  stop(): Promise<void> {
    return this.#looks.stop()
  }

  /** One look at everything that is due. Answers how many objects it deleted. */
  async sweep(signal: AbortSignal): Promise<number> {
    const { findAbandoned, leaseSeconds } = this.#options
    let deleted = 0
    for (;;) {
      const batches = await findAbandoned(leaseSeconds, BATCHES_AT_ONCE)
      let failed = 0
      for (const batch of batches) {
        if (signal.aborted) return deleted
        try {
          deleted += await this.#sweepBatch(batch, signal)
        } catch (error) {
          // It is looked at again; the others must not wait for it.
          failed++
          this.#options.log.warn('sweep_failed', { batch_id: batch.batchId, error })
        }
      }
      if (batches.length < BATCHES_AT_ONCE || failed > 0) return deleted
    }
  }

  async #sweepBatch(batch: AbandonedBatch, signal: AbortSignal): Promise<number> {
    const { store, keyPrefix, markSwept, forgetAbandoned, log, metrics } = this.#options
    let deleted = 0
    let refused = false
    for (const key of batch.keys) {
      if (parseObjectKey(key, keyPrefix)?.batchId !== batch.batchId) {
        // Under another S3_PREFIX, say: it stays written down until somebody has looked.
        log.error('sweep_refused', { batch_id: batch.batchId, key })
        refused = true
        continue
      }
      if ((await store.stat(key, signal)) === undefined) continue
      await store.remove(key, signal)
      deleted++
      metrics.sweptObjects.inc()
      log.info('object_swept', { batch_id: batch.batchId, key })
    }
    if (!refused) await (batch.secondLook ? forgetAbandoned(batch.batchId) : markSwept(batch.batchId))
    return deleted
  }
}
