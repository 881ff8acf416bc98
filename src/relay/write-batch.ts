import pLimit from 'p-limit'
import { type BackoffSettings, backoffMs } from '../foundation/backoff.ts'
import type { Clock } from '../foundation/clock.ts'
import { asFailure, Failure } from '../foundation/failure.ts'
import { freeMemory } from '../foundation/memory.ts'
import { decodeSummary } from '../otlp/summary.ts'
import type { Batch, BatchId, Lease } from '../queue/batch.ts'
import type { BuryOptions, CatalogEntry, FailOptions, Settled } from '../queue/settle.ts'
import { type BatchObject, objectKeysOfBatch, objectsOfBatch } from '../sink/object.ts'
import type { ObjectStore } from '../sink/object-store.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Circuits, Sink } from './circuit-breaker.ts'
import { judge, judgeTakenOver } from './failure-policy.ts'
import type { HeldBatch } from './held-batch.ts'

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
  circuits: Circuits
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

/** How long a batch is given back for before it is left to its lease. */
const GIVE_BACK_MS_MAX = 1_000
/** Statements that end with the server's own time limit before the batch is looked at for another cause. */
const STATEMENT_TIMEOUTS_MAX = 3
const STATEMENT_TIMEOUT = '57014'

/** The sink that a batch was at when it failed, and since when (monotonic). */
interface Step {
  sink: Sink
  begunMs: number
}

interface Reason {
  failure: Failure
  /** Undefined when it got to no sink. */
  step: Step | undefined
}

/** `left`: nothing could be said to the database any more, so the batch waits for its lease to run out. */
export type Written = 'done' | 'left'

/**
 * Puts the objects of a batch and settles it. It never throws for what an outage or the data can bring about.
 *
 * @param giveUp aborts when nothing more may be begun: the batch is then given back, if the database still answers.
 */
export async function writeBatch(
  options: WriterOptions,
  held: HeldBatch,
  giveUp: AbortSignal,
): Promise<Written> {
  const { circuits, clock } = options
  let step: Step | undefined
  try {
    const { batch } = held
    if (circuits.isOneOpen) {
      await releaseUnstarted(options, held, giveUp)
      return 'done'
    }
    if (batch.rows.length !== batch.expectedRows) {
      throw new Failure('bug', `the batch says ${batch.expectedRows} rows and has ${batch.rows.length}`)
    }
    const suspicion = judgeTakenOver({ rows: batch.rows.length, takeovers: batch.takeovers }, options)
    if (suspicion !== 'write') {
      await setAside(options, held, suspicion, giveUp)
      return 'done'
    }
    const objects = objectsOf(options, batch)
    step = { sink: 'store', begunMs: clock.monotonicMs() }
    await putAll(options, held, objects, giveUp)
    circuits.store.succeeded()
    requireTrust(held, clock.monotonicMs())
    step = { sink: 'catalog', begunMs: clock.monotonicMs() }
    await complete(options, held, objects, giveUp)
    circuits.catalog.succeeded()
    // Not after a failure: a put that was broken off may still have its body.
    for (const { body } of objects) freeMemory(body)
    return 'done'
  } catch (thrown) {
    return await endFailed(options, held, { failure: asFailure(thrown), step }, giveUp)
  }
}

/**
 * Gives back a batch that nobody here has begun to write: its rows are pending again. One that others have held, or
 * that failed before, stays the batch that it is, with its history.
 */
export async function releaseUnstarted(
  options: WriterOptions,
  held: HeldBatch,
  giveUp: AbortSignal,
): Promise<void> {
  const { queue, keyPrefix } = options
  const { batch } = held
  await settle(options, held, giveUp, { outcome: 'released', failure: 'none' }, () =>
    batch.isFirstHold
      ? queue.releaseBatch(batch, objectKeysOfBatch(batch.batchId, batch.rows, { prefix: keyPrefix }))
      : queue.failBatch(batch, {
          countAttempt: false,
          countOutage: false,
          delayMs: 0,
          error: batch.lastError ?? 'given back when its worker stopped',
        }),
  )
}

function objectsOf({ keyPrefix }: WriterOptions, batch: Batch): BatchObject[] {
  const rows = batch.rows.map((row) => ({ ...row, summary: decodeSummary(row.summary) }))
  // The payloads of which objects are copies would be as large again, for as long as the puts take.
  return objectsOfBatch(batch.batchId, rows, { prefix: keyPrefix, onCopied: freeMemory })
}

async function endFailed(
  options: WriterOptions,
  held: HeldBatch,
  reason: Reason,
  giveUp: AbortSignal,
): Promise<Written> {
  const { failure, step } = reason
  // A settle is said again until the lease ends it; a put that the lease or a stop broke off says nothing.
  if (step?.sink === 'catalog' && failure.kind === 'outage' && !giveUp.aborted) {
    options.circuits.catalog.failed(failure, step.begunMs)
  }
  try {
    if (!held.lost.signal.aborted && !giveUp.aborted) {
      await settleFailure(options, held, reason, giveUp)
      return 'done'
    }
  } catch (error) {
    if (!held.lost.signal.aborted && !giveUp.aborted) {
      options.log.error('settle_failed', { batch_id: held.batch.batchId, error })
    }
  }
  return await loseBatch(options, held)
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
  { store, clock, leaseSeconds, metrics }: WriterOptions,
  held: HeldBatch,
  object: BatchObject,
  giveUp: AbortSignal,
): Promise<void> {
  const startedMs = clock.monotonicMs()
  requireTrust(held, startedMs)
  // At most half the lease: whoever takes the batch over must not meet a put that is still on its way.
  const deadline = clock.deadline((leaseSeconds * 1000) / 2)
  try {
    const signal = AbortSignal.any([deadline, held.lost.signal, giveUp])
    await store.put(object.key, object.body, object.checksum, signal)
    metrics.storeUp.set(1)
    metrics.puts.labels({ outcome: 'stored' }).inc()
  } catch (thrown) {
    const failure = asFailure(thrown)
    metrics.puts.labels({ outcome: failure.kind }).inc()
    // A put that we broke off ourselves says nothing about the store.
    const brokenOff = held.lost.signal.aborted || giveUp.aborted
    const isAway = failure.kind === 'outage' || failure.kind === 'configuration'
    if (isAway && !brokenOff) metrics.storeUp.set(0)
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
  const outcome = await settle(options, held, giveUp, { outcome: 'completed', failure: 'none' }, () =>
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
  { failure, step }: Reason,
  giveUp: AbortSignal,
): Promise<void> {
  const { queue, circuits, backoff, log, leaseSeconds, attemptsMax } = options
  const { batch } = held
  const error = errorText(failure)
  const verdict = judge(
    failure,
    { rows: batch.rows.length, attempts: batch.attempts, failedAlike: batch.lastError === error },
    { attemptsMax, othersSucceed: circuits.store.succeededWithin(leaseSeconds * 1000) },
  )
  const isRetried = verdict === 'retry' || verdict === 'count'
  const delayMs = backoffMs(verdict === 'count' ? batch.attempts : batch.outages, backoff)
  const circuit = step && circuits[step.sink]
  if (verdict === 'retry') circuit?.failed(failure, step?.begunMs ?? 0)
  else if (failure.kind === 'data') circuit?.succeeded()
  log.error('batch_persist_failed', {
    reason: failure.kind,
    batch_id: batch.batchId,
    verdict,
    rows: batch.rows.length,
    attempts: batch.attempts + (verdict === 'count' || verdict === 'bury' ? 1 : 0),
    ...(isRetried ? { next_attempt_ms: delayMs } : {}),
    error: failure,
  })
  if (!isRetried) return await setAside(options, held, verdict, giveUp, failure)
  const countAttempt = verdict === 'count'
  await settle(options, held, giveUp, { outcome: 'failed', failure: failure.kind }, () =>
    queue.failBatch(batch, { countAttempt, countOutage: !countAttempt, delayMs, error }),
  )
}

/** Halves a batch, or buries its only row: because it failed for its data, or because its holders vanish. */
async function setAside(
  options: WriterOptions,
  held: HeldBatch,
  how: 'split' | 'bury',
  giveUp: AbortSignal,
  failure?: Failure,
): Promise<void> {
  const { queue, log, metrics, keyPrefix } = options
  const { batch } = held
  const keys = objectKeysOfBatch(batch.batchId, batch.rows, { prefix: keyPrefix })
  const before = batch.lastError === null ? '' : `; before that: ${batch.lastError}`
  const error =
    failure === undefined
      ? `${batch.takeovers} workers in a row vanished with this batch${before}`
      : errorText(failure)
  const kind = failure?.kind ?? 'none'
  if (how === 'split') {
    const labels = { outcome: 'split', failure: kind }
    await settle(options, held, giveUp, labels, () => queue.splitBatch(batch, keys, error))
    return
  }
  const reason = failure === undefined ? 'worker_lost' : 'data_refused'
  const labels = { outcome: 'buried', failure: kind }
  const outcome = await settle(options, held, giveUp, labels, () =>
    queue.buryBatch(batch, keys, { reason, countAttempt: failure !== undefined, error }),
  )
  if (outcome !== 'settled') return
  for (const { id, signal, requestId } of batch.rows) {
    metrics.deadLetters.labels({ signal }).inc()
    log.error('request_buried', {
      reason,
      batch_id: batch.batchId,
      request_id: requestId,
      queue_id: id,
      detail: error,
    })
  }
}

/**
 * Says a settle until the database answers, for as long as the lease holds for certain. A settle that matched nothing
 * asks the catalog, forgets the batch, and touches nothing.
 *
 * @returns `settled` too when an earlier try of this settle was carried out and only its answer was lost.
 * @throws Failure when the database refuses the settle for another reason than an outage.
 */
async function settle(
  options: WriterOptions,
  held: HeldBatch,
  giveUp: AbortSignal,
  labels: { outcome: string; failure: string },
  say: () => Promise<Settled>,
): Promise<Settled> {
  const { queue, log, metrics, clock } = options
  const { batchId } = held.batch
  requireTrust(held, clock.monotonicMs())
  const { answer, tries } = await whileDatabaseIsAway(options, held, giveUp, say)
  if (answer === 'settled') {
    metrics.settledBatches.labels(labels).inc()
    return 'settled'
  }
  try {
    const asked = await whileDatabaseIsAway(options, held, giveUp, () => queue.findSettled(batchId))
    if (asked.answer) {
      log.info('batch_settled_before', { batch_id: batchId, ...labels })
      if (tries === 1) return 'forgotten'
      metrics.settledBatches.labels(labels).inc()
      return 'settled'
    }
    metrics.settledBatches.labels({ outcome: 'lost', failure: 'none' }).inc()
    log.warn('batch_lost', { batch_id: batchId, ...labels })
    await queue.absolveBatch(batchId)
  } catch (error) {
    // It is somebody else's in any case: that nobody could be asked changes nothing.
    log.warn('batch_lost', { batch_id: batchId, ...labels, error })
  }
  return 'forgotten'
}

/** A process that was frozen may wake up long after its lease: it must not begin anything then. */
function requireTrust(held: HeldBatch, nowMs: number): void {
  if (nowMs < held.trustedUntilMs && !held.lost.signal.aborted) return
  held.lost.abort()
  throw new Failure('outage', 'the lease ran out')
}

async function whileDatabaseIsAway<T>(
  { clock, metrics, backoff, log }: WriterOptions,
  held: HeldBatch,
  giveUp: AbortSignal,
  say: () => Promise<T>,
): Promise<{ answer: T; tries: number }> {
  let timeouts = 0
  for (let tries = 1; ; tries++) {
    try {
      return { answer: await say(), tries }
    } catch (thrown) {
      const failure = asFailure(thrown)
      if (failure.kind !== 'outage') throw failure
      metrics.databaseUp.set(0)
      if (held.lost.signal.aborted || giveUp.aborted) throw failure
      if (failure.code === STATEMENT_TIMEOUT && ++timeouts === STATEMENT_TIMEOUTS_MAX) {
        throw new Failure('bug', `the settle ended ${timeouts} times at the time limit`, { cause: failure })
      }
      log.warn('settle_waits', { batch_id: held.batch.batchId, error: failure })
      const waiting = AbortSignal.any([held.lost.signal, giveUp])
      await clock.sleep(backoffMs(tries - 1, { ...SETTLE_RETRY_MS, random: backoff.random }), waiting)
    }
  }
}

/**
 * The batch cannot be finished here: its lease cannot be trusted any more, or the process gives up. The holder is
 * alive, so it says so: either the batch is still under its token and goes back as failed, or another has it and must
 * not count a vanished holder.
 */
async function loseBatch(
  { queue, log, metrics, clock, leaseSeconds }: WriterOptions,
  held: HeldBatch,
): Promise<Written> {
  const { batchId } = held.batch
  const error = held.lost.signal.aborted
    ? 'the lease ran out while the batch was in hand'
    : 'its worker had to stop while the batch was in hand'
  const settled = new AbortController()
  try {
    const late = clock.sleep(Math.min(GIVE_BACK_MS_MAX, (leaseSeconds * 1000) / 2), settled.signal)
    const said = await Promise.race([
      queue.failBatch(held.batch, { countAttempt: false, countOutage: false, delayMs: 0, error }),
      late.then(() => 'late' as const),
    ])
    if (said === 'late') throw new Failure('outage', 'the database does not answer')
    if (said === 'forgotten') await queue.absolveBatch(batchId)
    const outcome = said === 'settled' ? 'failed' : 'lost'
    metrics.settledBatches.labels({ outcome, failure: 'outage' }).inc()
    log.warn('batch_lost', { batch_id: batchId, given_back: said === 'settled', detail: error })
    return 'done'
  } catch (thrown) {
    // Nothing is lost: the lease runs out, and whoever takes the batch over counts one vanished holder.
    metrics.settledBatches.labels({ outcome: 'lost', failure: 'outage' }).inc()
    log.warn('batch_lost', { batch_id: batchId, given_back: false, detail: error, error: thrown })
    return 'left'
  } finally {
    settled.abort()
  }
}

function errorText(failure: Failure): string {
  return failure.code === undefined ? failure.message : `${failure.code}: ${failure.message}`
}
