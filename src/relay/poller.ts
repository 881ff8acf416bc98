import { backoffMs } from '../foundation/backoff.ts'
import type { Clock } from '../foundation/clock.ts'
import { asFailure } from '../foundation/failure.ts'
import type { Batch } from '../queue/batch.ts'
import type { Pending } from '../queue/count-pending.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { BatchBuffer } from './batch-buffer.ts'
import type { Circuits } from './circuit-breaker.ts'
import { trustedUntilMs } from './lease-keeper.ts'

/** The statements that a poller asks, with the settings that do not change already in them. */
export interface PollerQueue {
  countPending: (limit: number) => Promise<Pending>
  claimBatch: (bounds: {
    rowsMax: number
    bytesMax: number
    firstAnySize: boolean
  }) => Promise<Batch | undefined>
  hasDueBatch: () => Promise<boolean>
  takeOverBatch: (bounds: { rowsMax: number; bytesMax: number }) => Promise<Batch | undefined>
}

export interface PollerOptions {
  queue: PollerQueue
  buffer: BatchBuffer
  circuits: Circuits
  batchRowsMax: number
  flushIntervalMs: number
  leaseSeconds: number
  clock: Clock
  random: () => number
  log: Log
  metrics: Metrics
}

/** How often a busy poller looks for batches that are due again or whose holder vanished. */
const TAKE_OVER_INTERVAL_MS = 250
const IDLE_MS_MIN = 10
const DATABASE_RETRY_MS = { baseMs: 100, maxMs: 1_000 }
const ANY_SIZE = 2 ** 31 - 1

/**
 * Moves batches from the queue into the buffer, one at a time, until told to stop: at once while there is work,
 * jittered when idle, not at all while the buffer is full or a circuit is open.
 */
export async function poll(options: PollerOptions, stopping: AbortSignal): Promise<void> {
  const { buffer, circuits, clock, random, log, metrics, batchRowsMax } = options
  let databaseFailures = 0
  let takeOverDueMs = 0
  while (!stopping.aborted) {
    if (!buffer.hasRoomFor(batchRowsMax)) {
      metrics.processingPauses.inc()
      metrics.processingPaused.set(1)
      log.warn('processing_paused', { reason: 'buffer_full', rows: buffer.rows, bytes: buffer.bytes })
      while (!buffer.hasRoomFor(batchRowsMax) && !stopping.aborted) await buffer.roomFreed(stopping)
      metrics.processingPaused.set(0)
      continue
    }
    await circuits.wait(stopping)
    if (!circuits.areClosed && !buffer.isEmpty) {
      // A sink was away: one batch goes first.
      await buffer.roomFreed(stopping)
      continue
    }
    if (stopping.aborted) return
    const begunMs = clock.monotonicMs()
    try {
      // What goes first is best a batch that has not failed: one that never can be put would keep the circuit open.
      if (!circuits.areClosed && (await claimWhenDue(options)) === 0) continue
      const nowMs = clock.monotonicMs()
      if (nowMs >= takeOverDueMs) {
        const found = await takeOver(options)
        takeOverDueMs = found === 'taken' ? 0 : nowMs + TAKE_OVER_INTERVAL_MS
        if (found === 'too large') {
          // What came later must not keep it waiting for ever.
          while (!buffer.isEmpty && !stopping.aborted) await buffer.roomFreed(stopping)
          takeOverDueMs = 0
        }
        if (found !== 'nothing') continue
      }
      const waitMs = await claimWhenDue(options)
      databaseFailures = 0
      if (waitMs > 0) await clock.sleep(Math.min(waitMs, TAKE_OVER_INTERVAL_MS), stopping)
    } catch (error) {
      if (stopping.aborted) return
      metrics.databaseUp.set(0)
      log.error('poll_failed', { error })
      const failure = asFailure(error)
      // Claims that an outage stops need no circuit: nothing is claimed, and asking is the best way to find its end.
      if (failure.kind === 'configuration') circuits.catalog.failed(failure, begunMs)
      await clock.sleep(backoffMs(databaseFailures++, { ...DATABASE_RETRY_MS, random }), stopping)
    }
  }
}

async function takeOver(options: PollerOptions): Promise<'taken' | 'nothing' | 'too large'> {
  const { queue, buffer, metrics, log } = options
  const askedMs = options.clock.monotonicMs()
  const anySize = buffer.isEmpty
  // A batch of another process may be larger than ours ever are: an empty buffer takes any.
  const batch = await queue.takeOverBatch(
    anySize
      ? { rowsMax: ANY_SIZE, bytesMax: ANY_SIZE }
      : { rowsMax: buffer.freeRows, bytesMax: buffer.freeBytes },
  )
  metrics.databaseUp.set(1)
  if (batch === undefined) return !anySize && (await queue.hasDueBatch()) ? 'too large' : 'nothing'
  if (batch.takeovers > 0) {
    metrics.takeovers.inc()
    log.warn('batch_taken_over', {
      batch_id: batch.batchId,
      rows: batch.expectedRows,
      takeovers: batch.takeovers,
    })
  }
  hold(options, batch, askedMs)
  return 'taken'
}

/** Claims a batch that is full or whose oldest row waited long enough. Answers how long to wait otherwise. */
async function claimWhenDue(options: PollerOptions): Promise<number> {
  const { queue, buffer, batchRowsMax, flushIntervalMs, random, metrics } = options
  const pending = await queue.countPending(batchRowsMax)
  metrics.databaseUp.set(1)
  if (pending.rows === 0) return Math.max(IDLE_MS_MIN, flushIntervalMs * (0.5 + random() / 2))
  if (pending.rows < batchRowsMax && pending.oldestMs < flushIntervalMs) {
    return Math.max(1, flushIntervalMs - pending.oldestMs)
  }
  const askedMs = options.clock.monotonicMs()
  const bounds = { rowsMax: batchRowsMax, bytesMax: buffer.freeBytes, firstAnySize: buffer.isEmpty }
  const batch = await queue.claimBatch(bounds)
  if (batch === undefined) return Math.max(IDLE_MS_MIN, (flushIntervalMs * random()) / 2)
  metrics.claimedBatches.inc()
  metrics.claimedRows.inc(batch.rows.length)
  hold(options, batch, askedMs)
  return 0
}

function hold({ buffer, leaseSeconds }: PollerOptions, batch: Batch, askedMs: number): void {
  buffer.add({ batch, lost: new AbortController(), trustedUntilMs: trustedUntilMs(askedMs, leaseSeconds) })
}
