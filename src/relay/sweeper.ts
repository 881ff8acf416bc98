import type { Clock } from '../foundation/clock.ts'
import { Periodic } from '../foundation/periodic.ts'
import type { Service } from '../foundation/service.ts'
import { type AbandonedBatch, FIRST_BATCH_ID, type SweepQueue } from '../queue/abandoned.ts'
import { parseObjectKey } from '../sink/object-key.ts'
import type { ObjectStore } from '../sink/object-store.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'

export interface SweeperOptions {
  queue: SweepQueue
  store: ObjectStore
  keyPrefix: string
  /** A put may take half of it, so this is two put deadlines. */
  leaseSeconds: number
  clock: Clock
  random: () => number
  log: Log
  metrics: Metrics
}

/** What one look at everything that was due came to. */
export interface Sweep {
  /** False when somebody else sweeps at the moment: nothing was looked at. */
  isLocked: boolean
  deletedKeys: string[]
  /** Batches with a key that is not theirs under this prefix. */
  refused: number
  /** Batches that are looked at again, since the store or the database did not answer. */
  failed: number
}

const BATCHES_AT_ONCE = 100
/** So many batches in a row, and it is the store or the database that is away. */
const FAILURES_IN_A_ROW_MAX = 3

/**
 * Deletes what batches left in the store that were split, released or buried. Only keys of such batches, only after
 * two put deadlines, and only if the catalog names none of them; then it looks a second time for a late put. A key
 * holds its batch's id, and the row of an abandoned batch is gone, so no later settle can ever name the key.
 *
 * One process at a time sweeps a database. Right before each deletion the database is asked again, on the session that
 * holds the lock: it may have been restored, or have failed over to a server that never heard of the abandonment,
 * while this process was frozen or waited for the store.
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

  /** One look at everything that is due. Each batch is looked at once, whatever becomes of it. */
  async sweep(signal: AbortSignal): Promise<Sweep> {
    const { queue } = this.#options
    const sweep: Sweep = { isLocked: await queue.lock(), deletedKeys: [], refused: 0, failed: 0 }
    if (!sweep.isLocked) return sweep
    try {
      await this.#sweepAll(sweep, signal)
    } finally {
      await queue.unlock()
    }
    return sweep
  }

  async #sweepAll(sweep: Sweep, signal: AbortSignal): Promise<void> {
    const { queue, leaseSeconds, log } = this.#options
    let after = FIRST_BATCH_ID
    let failuresInARow = 0
    for (;;) {
      const batches = await queue.find(leaseSeconds, BATCHES_AT_ONCE, after)
      for (const batch of batches) {
        if (signal.aborted) return
        after = batch.batchId
        try {
          await this.#sweepBatch(batch, sweep, signal)
          failuresInARow = 0
        } catch (error) {
          // It is looked at again; the others must not wait for it.
          if (signal.aborted) return
          sweep.failed++
          log.warn('sweep_failed', { batch_id: batch.batchId, error })
          if (++failuresInARow === FAILURES_IN_A_ROW_MAX) return
        }
      }
      if (batches.length < BATCHES_AT_ONCE) return
    }
  }

  async #sweepBatch(batch: AbandonedBatch, sweep: Sweep, signal: AbortSignal): Promise<void> {
    const { queue, store, keyPrefix, log, metrics } = this.#options
    let isDone = true
    for (const key of batch.keys) {
      if (parseObjectKey(key, keyPrefix)?.batchId !== batch.batchId) {
        // Under another S3_PREFIX, say: it stays written down until somebody has looked.
        log.error('sweep_refused', { batch_id: batch.batchId, key })
        isDone = false
        continue
      }
      if ((await store.stat(key, signal)) === undefined) continue
      if (!(await this.#maySweep(batch, key))) {
        log.warn('sweep_refused', { reason: 'no_longer_left_over', batch_id: batch.batchId, key })
        isDone = false
        continue
      }
      await store.remove(key, signal)
      sweep.deletedKeys.push(key)
      metrics.sweptObjects.inc()
      log.info('object_swept', { batch_id: batch.batchId, key })
    }
    if (!isDone) sweep.refused++
    else if (batch.secondLook) await queue.forget(batch.batchId)
    else await queue.markSwept(batch.batchId)
  }

  /** An answer that lay unread while this process was frozen says nothing. */
  async #maySweep({ batchId }: AbandonedBatch, key: string): Promise<boolean> {
    const { queue, clock, leaseSeconds } = this.#options
    const askedMs = clock.monotonicMs()
    const may = await queue.maySweep(batchId, key)
    return may && clock.monotonicMs() - askedMs < leaseSeconds * 500
  }
}
