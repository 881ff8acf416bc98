import { aborted } from '../foundation/abort.ts'
import type { Service } from '../foundation/service.ts'
import type { BatchId, Lease } from '../queue/batch.ts'
import { BatchBuffer } from './batch-buffer.ts'
import { Circuits, type Sink } from './circuit-breaker.ts'
import { LeaseKeeper } from './lease-keeper.ts'
import { type PollerOptions, type PollerQueue, poll } from './poller.ts'
import { releaseUnstarted, type SettleQueue, type WriterOptions, writeBatch } from './write-batch.ts'

/** A sentence for each sink whose circuit is not closed. */
export type Complaints = Readonly<Record<Sink, string | undefined>>

/** Every statement that the relay asks of the queue. */
export interface RelayQueue extends PollerQueue, SettleQueue {
  renewLeases: (leases: readonly Lease[]) => Promise<Set<BatchId>>
}

export interface RelayOptions
  extends Omit<WriterOptions, 'circuits' | 'queue'>,
    Pick<PollerOptions, 'batchRowsMax' | 'flushIntervalMs' | 'random'> {
  queue: RelayQueue
  workers: number
  bufferRowsMax: number
  bufferBytesMax: number
  circuitFailureThreshold: number
  circuitResetSeconds: number
}

/**
 * The workers: a poller that claims batches into a bounded buffer, writers that put and settle them, and a keeper of
 * their leases.
 */
export class Relay implements Service {
  readonly name = 'relay'
  readonly #options: RelayOptions
  readonly #buffer: BatchBuffer
  readonly #circuits: Circuits
  readonly #keeper: LeaseKeeper
  readonly #stopping = new AbortController()
  readonly #giveUp = new AbortController()
  #running: Promise<unknown> | undefined
  #poller: Promise<void> | undefined

  constructor(options: RelayOptions) {
    this.#options = options
    this.#buffer = new BatchBuffer({ rowsMax: options.bufferRowsMax, bytesMax: options.bufferBytesMax })
    const { leaseSeconds, clock, log, metrics, queue } = options
    const { circuitFailureThreshold, circuitResetSeconds } = options
    this.#circuits = new Circuits({
      failureThreshold: circuitFailureThreshold,
      resetSeconds: circuitResetSeconds,
      clock,
      log,
      metrics,
    })
    this.#keeper = new LeaseKeeper({
      held: this.#buffer.held,
      leaseSeconds,
      renew: queue.renewLeases,
      clock,
      log,
      metrics,
    })
    metrics.watch('bufferRows', () => this.#buffer.rows)
    metrics.watch('bufferBytes', () => this.#buffer.bytes)
  }

  /** Batches claimed and not settled. Those left after a stop that gave up wait for their leases to run out. */
  get batchesInHand(): number {
    return this.#buffer.held.size
  }

  /** Why nothing is claimed, by the sink that takes nothing: see `CircuitBreaker.complaint`. */
  get complaints(): Complaints {
    return { store: this.#circuits.store.complaint, catalog: this.#circuits.catalog.complaint }
  }

  async start(): Promise<void> {
    await this.#keeper.start()
    const { workers, batchRowsMax, flushIntervalMs, leaseSeconds, clock, random, log, metrics, queue } =
      this.#options
    this.#poller = poll(
      {
        queue,
        buffer: this.#buffer,
        circuits: this.#circuits,
        batchRowsMax,
        flushIntervalMs,
        leaseSeconds,
        clock,
        random,
        log,
        metrics,
      },
      this.#stopping.signal,
    )
    this.#running = Promise.all(Array.from({ length: workers }, () => this.#write()))
  }

  /** Claims nothing more, gives back what nobody has begun to write, and finishes what is being written. */
  async stop(giveUp: AbortSignal): Promise<void> {
    giveUp.addEventListener('abort', () => this.#giveUp.abort(), { once: true })
    if (giveUp.aborted) this.#giveUp.abort()
    this.#stopping.abort()
    // A poller whose database hangs must not hold up the end.
    await Promise.race([this.#poller, aborted(giveUp)])
    const options = this.#writerOptions()
    await Promise.all(
      this.#buffer.close().map(async (held) => {
        try {
          await releaseUnstarted(options, held, this.#giveUp.signal)
          this.#buffer.done(held)
        } catch (error) {
          this.#options.log.error('release_failed', { batch_id: held.batch.batchId, error })
        }
      }),
    )
    await this.#running
    await this.#keeper.stop()
  }

  async #write(): Promise<void> {
    const options = this.#writerOptions()
    for (;;) {
      const held = await this.#buffer.take()
      if (held === undefined) return
      const written = await writeBatch(options, held, this.#giveUp.signal)
      // What is left at the end stays counted, so that the log can say how many leases have to run out.
      if (written === 'done' || !this.#giveUp.signal.aborted) this.#buffer.done(held)
    }
  }

  #writerOptions(): WriterOptions {
    return { ...this.#options, circuits: this.#circuits }
  }
}
