import pLimit from 'p-limit'
import { type BackoffSettings, backoffMs } from '../foundation/backoff.ts'
import type { Clock } from '../foundation/clock.ts'
import { asFailure, Failure } from '../foundation/failure.ts'
import type { Batch, BatchId, Lease } from '../queue/batch.ts'
import type { BuryOptions, CatalogEntry, FailOptions, Settled } from '../queue/settle.ts'
import { type BatchObject, objectsOfBatch } from '../sink/object.ts'
import type { ObjectStore } from '../sink/object-store.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { judge, judgeTakenOver } from './failure-policy.ts'
import type { HeldBatch } from './held-batch.ts'
import type { StoreGate } from './store-gate.ts'

/** The statements that end a batch. */
export interface SettleQueue {
  completeBatch: (batch: Batch, entries: readonly CatalogEntry[]) => Promise<Settled>
  failBatch: (lease: Lease, options: FailOptions) => Promise<Settled>
  splitBatch: (batch: Batch, keys: readonly string[], error: string) => Promise<Settled>
  releaseBatch: (batch: Batch, keys: readonly string[]) => Promise<Settled>
  buryBatch: (batch: Batch, keys: readonly string[], options: BuryOptions) => Promise<Settled>
  absolveBatch: (batchId: BatchId) => Promise<void>
  findSettled: (batchId: BatchId) => Promise<boolean>
}

export interface WriterOptions {
  queue: SettleQueue
  store: ObjectStore
  gate: StoreGate
  keyPrefix: string
  leaseSeconds: number
  attemptsMax: number
  backoff: BackoffSettings
  clock: Clock
  log: Log
  metrics: Metrics
}

/** Objects of one batch that are put at the same time. */
const PUTS_AT_ONCE = 4
/** Pause between tries of a settle while the database is away and the lease still holds. */
const SETTLE_RETRY_MS = { baseMs: 50, maxMs: 1_000 }

/**
 * Puts the objects of a batch and settles it. It never throws for what an outage or the data can bring about.
 *
 * @param giveUp aborts when nothing more may be begun: the batch is then left to its lease.
 */
export async function writeBatch(
  options: WriterOptions,
  held: HeldBatch,
  giveUp: AbortSignal,
): Promise<void> {
  const { batch } = held
  let objects: readonly BatchObject[] = []
  try {
    if (batch.rows.length !== batch.expectedRows) {
      throw new Failure('bug', `the batch says ${batch.expectedRows} rows and has ${batch.rows.length}`)
    }
    objects = objectsOfBatch(batch.batchId, batch.rows, { prefix: options.keyPrefix })
    const suspicion = judgeTakenOver({ rows: batch.rows.length, takeovers: batch.takeovers })
    if (suspicion !== 'write') return await setAside(options, held, objects, suspicion, giveUp)
    await putAll(options, held, objects, giveUp)
    await complete(options, held, objects, giveUp)
  } catch (thrown) {
    if (giveUp.aborted) return
    try {
      if (!held.lost.signal.aborted)
        return await settleFailure(options, held, objects, asFailure(thrown), giveUp)
    } catch (error) {
      if (giveUp.aborted) return
      if (!held.lost.signal.aborted) options.log.error('settle_failed', { batch_id: batch.batchId, error })
    }
    await loseBatch(options, held)
  }
}

/** Gives back a batch that nobody has begun to write. */
export async function releaseUnstarted(
  options: WriterOptions,
  held: HeldBatch,
  giveUp: AbortSignal,
): Promise<void> {
  const { batch } = held
  const keys = keysOf(objectsOfBatch(batch.batchId, batch.rows, { prefix: options.keyPrefix }))
  await settle(options, held, giveUp, 'released', 'none', () => options.queue.releaseBatch(batch, keys))
}

async function putAll(
  options: WriterOptions,
  held: HeldBatch,
  objects: readonly BatchObject[],
  giveUp: AbortSignal,
): Promise<void> {
  const limit = pLimit(PUTS_AT_ONCE)
  const results = await Promise.allSettled(
    objects.map((object) => limit(() => put(options, held, object, giveUp))),
  )
  const failures = results.flatMap((result) =>
    result.status === 'rejected' ? [asFailure(result.reason)] : [],
  )
  // An object that is at fault decides over one that only met an outage: the outage will pass, the fault will not.
  const worst = failures.find((failure) => failure.kind === 'data') ?? failures[0]
  if (worst !== undefined) throw worst
}

async function put(
  { store, clock, leaseSeconds, gate, metrics }: WriterOptions,
  held: HeldBatch,
  object: BatchObject,
  giveUp: AbortSignal,
): Promise<void> {
  const startedMs = clock.monotonicMs()
  // At most half the lease: whoever takes the batch over must not meet a put that is still on its way.
  const deadline = clock.deadline((leaseSeconds * 1000) / 2)
  try {
    const signal = AbortSignal.any([deadline, held.lost.signal, giveUp])
    await store.put(object.key, object.body, object.checksum, signal)
    gate.succeeded()
    metrics.storeUp.set(1)
    metrics.puts.labels({ outcome: 'stored' }).inc()
  } catch (thrown) {
    const failure = asFailure(thrown)
    metrics.puts.labels({ outcome: failure.kind }).inc()
    if (failure.kind === 'outage' || failure.kind === 'configuration') metrics.storeUp.set(0)
    throw failure
  } finally {
    metrics.putDuration.observe((clock.monotonicMs() - startedMs) / 1000)
  }
}

async function complete(
  options: WriterOptions,
  held: HeldBatch,
  objects: readonly BatchObject[],
  giveUp: AbortSignal,
): Promise<void> {
  const { queue, store, clock, log, metrics } = options
  const { batch } = held
  const entries = objects.map((object) => ({ ...object, bucket: store.bucket }))
  const startedMs = clock.monotonicMs()
  const outcome = await settle(options, held, giveUp, 'completed', 'none', () =>
    queue.completeBatch(batch, entries),
  )
  if (outcome !== 'settled') return
  metrics.settleDuration.observe((clock.monotonicMs() - startedMs) / 1000)
  for (const object of objects) {
    const labels = { signal: object.signal }
    metrics.storedObjects.labels(labels).inc()
    metrics.storedRows.labels(labels).inc(object.requests)
    metrics.storedItems.labels(labels).inc(object.items)
    metrics.storedBytes.labels(labels).inc(object.bytes)
  }
  log.debug('batch_stored', { batch_id: batch.batchId, rows: batch.rows.length, objects: objects.length })
}

async function settleFailure(
  options: WriterOptions,
  held: HeldBatch,
  objects: readonly BatchObject[],
  failure: Failure,
  giveUp: AbortSignal,
): Promise<void> {
  const { queue, gate, backoff, log, leaseSeconds } = options
  const { batch } = held
  const verdict = judge(
    failure,
    { rows: batch.rows.length, attempts: batch.attempts, outages: batch.outages },
    { attemptsMax: options.attemptsMax, othersSucceed: gate.succeededWithin(leaseSeconds * 1000) },
  )
  if (verdict === 'split' || verdict === 'bury') {
    log[verdict === 'bury' ? 'error' : 'warn']('batch_persist_failed', {
      reason: failure.kind,
      batch_id: batch.batchId,
      verdict,
      rows: batch.rows.length,
      attempts: batch.attempts + (verdict === 'bury' ? 1 : 0),
      error: failure,
    })
    return await setAside(options, held, objects, verdict, giveUp, failure)
  }
  const countAttempt = verdict === 'count'
  if (!countAttempt) gate.failed()
  const delayMs = backoffMs(countAttempt ? batch.attempts : batch.outages, backoff)
  log.error('batch_persist_failed', {
    reason: failure.kind,
    batch_id: batch.batchId,
    verdict,
    rows: batch.rows.length,
    attempts: batch.attempts + (countAttempt ? 1 : 0),
    next_attempt_ms: delayMs,
    error: failure,
  })
  await settle(options, held, giveUp, 'failed', failure.kind, () =>
    queue.failBatch(batch, { countAttempt, countOutage: !countAttempt, delayMs, error: errorText(failure) }),
  )
}

/** Halves a batch, or buries its only row: because it failed for its data, or because its holders vanish. */
async function setAside(
  options: WriterOptions,
  held: HeldBatch,
  objects: readonly BatchObject[],
  how: 'split' | 'bury',
  giveUp: AbortSignal,
  failure?: Failure,
): Promise<void> {
  const { queue, log, metrics } = options
  const { batch } = held
  const keys = keysOf(objects)
  const error =
    failure === undefined
      ? `${batch.takeovers} workers in a row vanished with this batch${batch.lastError === null ? '' : `; before that: ${batch.lastError}`}`
      : errorText(failure)
  const kind = failure?.kind ?? 'none'
  if (how === 'split') {
    await settle(options, held, giveUp, 'split', kind, () => queue.splitBatch(batch, keys, error))
    return
  }
  const reason = failure === undefined ? 'worker_lost' : 'data_refused'
  const outcome = await settle(options, held, giveUp, 'buried', kind, () =>
    queue.buryBatch(batch, keys, { reason, countAttempt: failure !== undefined, error }),
  )
  if (outcome !== 'settled') return
  for (const row of batch.rows) metrics.deadLetters.labels({ signal: row.signal }).inc()
  log.error('request_buried', { reason, batch_id: batch.batchId, queue_id: batch.rows[0]?.id, detail: error })
}

/**
 * Says a settle until the database answers, for as long as the lease holds for certain. A settle that matched nothing
 * asks the catalog, forgets the batch, and touches nothing.
 *
 * @throws Failure when the database refuses the settle for another reason than an outage.
 */
async function settle(
  options: WriterOptions,
  held: HeldBatch,
  giveUp: AbortSignal,
  outcome: string,
  failure: string,
  say: () => Promise<Settled>,
): Promise<Settled> {
  const { queue, log, metrics } = options
  const { batchId } = held.batch
  const settled = await whileDatabaseIsAway(options, held, giveUp, say)
  if (settled === 'settled') {
    metrics.settledBatches.labels({ outcome, failure }).inc()
    return 'settled'
  }
  const stored = await whileDatabaseIsAway(options, held, giveUp, () => queue.findSettled(batchId))
  metrics.settledBatches.labels({ outcome: stored ? 'completed' : 'lost', failure: 'none' }).inc()
  if (stored) {
    log.info('batch_settled_before', { batch_id: batchId, outcome })
  } else {
    log.warn('batch_lost', { batch_id: batchId, outcome })
    await queue.absolveBatch(batchId)
  }
  return 'forgotten'
}

async function whileDatabaseIsAway<T>(
  { clock, metrics, backoff }: WriterOptions,
  held: HeldBatch,
  giveUp: AbortSignal,
  say: () => Promise<T>,
): Promise<T> {
  for (let failures = 0; ; failures++) {
    try {
      return await say()
    } catch (thrown) {
      const failure = asFailure(thrown)
      if (failure.kind !== 'outage') throw failure
      metrics.databaseUp.set(0)
      if (held.lost.signal.aborted || giveUp.aborted) throw failure
      const waiting = AbortSignal.any([held.lost.signal, giveUp])
      await clock.sleep(backoffMs(failures, { ...SETTLE_RETRY_MS, random: backoff.random }), waiting)
    }
  }
}

/**
 * The lease could not be trusted any more while the batch was in hand. The holder is alive, so it says so: either the
 * batch is still under its token and goes back as failed, or another has it and must not count a vanished holder.
 */
async function loseBatch({ queue, log, metrics, backoff }: WriterOptions, held: HeldBatch): Promise<void> {
  const { batchId } = held.batch
  metrics.settledBatches.labels({ outcome: 'lost', failure: 'none' }).inc()
  try {
    const error = 'the lease ran out while the batch was being written'
    const delayMs = backoffMs(held.batch.outages, backoff)
    const said = await queue.failBatch(held.batch, { countAttempt: false, countOutage: true, delayMs, error })
    if (said === 'forgotten') await queue.absolveBatch(batchId)
    log.warn('batch_lost', { batch_id: batchId, given_back: said === 'settled' })
  } catch (error) {
    // Nothing is lost: the lease has run out, and whoever takes the batch over counts one vanished holder.
    log.warn('batch_lost', { batch_id: batchId, given_back: false, error })
  }
}

function keysOf(objects: readonly BatchObject[]): string[] {
  return objects.map((object) => object.key)
}

function errorText(failure: Failure): string {
  return failure.code === undefined ? failure.message : `${failure.code}: ${failure.message}`
}
