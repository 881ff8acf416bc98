import type { Batch, BatchId, LeaseToken } from '../../../src/queue/batch.ts'
import type { StagedRow } from '../../../src/queue/copy-format.ts'
import type { DeadLetterReason } from '../../../src/queue/dead-letters.ts'
import type { BuryOptions, FailOptions } from '../../../src/queue/settle.ts'

/** What a claim may hold once unpacked, whatever its caller says. */
const UNPACKED_BYTES_MAX = 128 * 1024 * 1024

export interface ModelRequest {
  /** Its name, and its `request_id`. */
  name: string
  id: bigint
  receivedAt: string
  staged: StagedRow
  place:
    | { is: 'pending' }
    | { is: 'batched'; batch: ModelBatch }
    | { is: 'stored'; key: string }
    | { is: 'dead'; letter: Letter }
    | { is: 'discarded' }
}

export interface ModelBatch {
  id: BatchId
  requests: readonly ModelRequest[]
  status: 'processing' | 'failed'
  /** Unknown for the halves of a split batch: nobody was given it. */
  leaseToken: LeaseToken | undefined
  owner: string
  /** The lease ran out, or the next attempt is due. */
  isOpen: boolean
  /** The number of the step that opened it: the longest open is taken first. */
  openSince: number
  attempts: number
  outages: number
  takeovers: number
  firstError: string | null
  lastError: string | null
}

export interface Letter {
  batch: string
  reason: DeadLetterReason
  attempts: number
  first: string
  last: string
}

export interface Abandoned {
  batchId: BatchId
  keys: readonly string[]
  isLookedAt: boolean
}

/** A batch as a worker has it in memory, for as long as it lives: long after it was settled or taken over, too. */
export interface Hand {
  worker: string
  batch: Batch
}

interface Bounds {
  rowsMax: number
  bytesMax: number
}

/** What the tables must hold, said without SQL. Whoever calls a method has seen the database do the same. */
export class Model {
  /** The number of steps taken. */
  step = 0
  readonly requests: ModelRequest[] = []
  readonly batches = new Map<BatchId, ModelBatch>()
  readonly abandoned: Abandoned[] = []
  /** Keys that the catalog names, with the batch and the requests of each. */
  readonly catalog = new Map<string, { batchId: BatchId; requests: readonly ModelRequest[] }>()
  /** Keys of the objects in the store. */
  readonly store = new Set<string>()
  readonly hands: Hand[] = []
  readonly #names = new Map<string, string>()

  /** Names of the next requests to come. */
  nextNames(count: number): string[] {
    return Array.from({ length: count }, (_, index) => `request ${this.requests.length + index + 1}`)
  }

  /** The same name for the same batch, in the order in which they are first seen. */
  nameOf(batchId: string): string {
    const known = this.#names.get(batchId)
    if (known !== undefined) return known
    const name = `batch ${this.#names.size + 1}`
    this.#names.set(batchId, name)
    return name
  }

  get pending(): ModelRequest[] {
    return this.requests.filter(({ place }) => place.is === 'pending').toSorted(byId)
  }

  /** The dead letters in the order of their ids. */
  get dead(): { request: ModelRequest; letter: Letter }[] {
    return this.requests
      .toSorted(byId)
      .flatMap((request) => (request.place.is === 'dead' ? [{ request, letter: request.place.letter }] : []))
  }

  /** Whether the hand still has the right to its batch, lease run out or not. */
  holds({ batch }: Hand): boolean {
    const known = this.batches.get(batch.batchId)
    return known?.status === 'processing' && known.leaseToken === batch.leaseToken
  }

  /** Whether the catalog or a dead letter names the batch. */
  isSettled(batchId: BatchId): boolean {
    const isStored = [...this.catalog.values()].some((object) => object.batchId === batchId)
    return isStored || this.dead.some(({ letter }) => letter.batch === this.nameOf(batchId))
  }

  append(request: Omit<ModelRequest, 'place'>): void {
    this.requests.push({ ...request, place: { is: 'pending' } })
  }

  /** What a claim must take: the oldest that fit. */
  claimable(bounds: Bounds & { firstAnySize: boolean }): ModelRequest[] {
    let [bytes, unpackedBytes] = [0, 0]
    return this.pending.slice(0, bounds.rowsMax).filter(({ staged }, index) => {
      bytes += staged.payload.length
      unpackedBytes += staged.unpackedBytes
      if (index === 0 && bounds.firstAnySize) return true
      return bytes <= bounds.bytesMax && unpackedBytes <= UNPACKED_BYTES_MAX
    })
  }

  claim(hand: Hand, requests: readonly ModelRequest[]): void {
    this.hands.push(hand)
    this.#gather(requests, {
      id: hand.batch.batchId,
      status: 'processing',
      leaseToken: hand.batch.leaseToken,
      owner: hand.worker,
      isOpen: false,
      firstError: null,
      lastError: null,
    })
  }

  /** The batches of which a take-over must take one: failed before abandoned by their holders, the longest open first. */
  takeable({ rowsMax, bytesMax }: Bounds): ModelBatch[] {
    const open = [...this.batches.values()].filter(
      (batch) => batch.isOpen && batch.requests.length <= rowsMax && bytesOf(batch) <= bytesMax,
    )
    const failed = open.filter(({ status }) => status === 'failed')
    const preferred = failed.length > 0 ? failed : open
    const first = Math.min(...preferred.map(({ openSince }) => openSince))
    return preferred.filter(({ openSince }) => openSince === first)
  }

  takeOver(hand: Hand, batch: ModelBatch): void {
    this.hands.push(hand)
    if (batch.status === 'processing') batch.takeovers++
    batch.status = 'processing'
    batch.isOpen = false
    batch.owner = hand.worker
    batch.leaseToken = hand.batch.leaseToken
  }

  open(batch: ModelBatch): void {
    batch.isOpen = true
    batch.openSince = this.step
  }

  complete(batch: ModelBatch, objects: readonly { key: string; queueIds: readonly bigint[] }[]): void {
    for (const { key, queueIds } of objects) {
      const requests = batch.requests.filter(({ id }) => queueIds.includes(id))
      this.catalog.set(key, { batchId: batch.id, requests })
      for (const request of requests) request.place = { is: 'stored', key }
    }
    this.batches.delete(batch.id)
  }

  fail(batch: ModelBatch, { countAttempt, countOutage, delayMs, error }: FailOptions): void {
    batch.status = 'failed'
    if (countAttempt) batch.attempts++
    if (countOutage) batch.outages++
    batch.takeovers = 0
    batch.firstError ??= error
    batch.lastError = error
    batch.isOpen = false
    if (delayMs === 0) this.open(batch)
  }

  /** `halves` are the ids that the database gave. */
  split(batch: ModelBatch, halves: readonly BatchId[], keys: readonly string[], error: string): void {
    const middle = Math.ceil(batch.requests.length / 2)
    const parts = [batch.requests.slice(0, middle), batch.requests.slice(middle)]
    for (const [index, id] of halves.entries()) {
      this.#gather(parts[index] ?? [], {
        id,
        status: 'failed',
        leaseToken: undefined,
        owner: batch.owner,
        isOpen: true,
        firstError: batch.firstError ?? error,
        lastError: error,
      })
    }
    this.#abandon(batch, keys)
  }

  release(batch: ModelBatch, keys: readonly string[]): void {
    for (const request of batch.requests) request.place = { is: 'pending' }
    this.#abandon(batch, keys)
  }

  bury(batch: ModelBatch, keys: readonly string[], { reason, countAttempt, error }: BuryOptions): void {
    const letter = {
      batch: this.nameOf(batch.id),
      reason,
      attempts: batch.attempts + (countAttempt ? 1 : 0),
      first: batch.firstError ?? error,
      last: error,
    }
    for (const request of batch.requests) request.place = { is: 'dead', letter }
    this.#abandon(batch, keys)
  }

  #gather(
    requests: readonly ModelRequest[],
    batch: Omit<ModelBatch, 'requests' | 'openSince' | 'attempts' | 'outages' | 'takeovers'>,
  ): void {
    const gathered = { ...batch, requests, openSince: this.step, attempts: 0, outages: 0, takeovers: 0 }
    this.batches.set(batch.id, gathered)
    for (const request of requests) request.place = { is: 'batched', batch: gathered }
  }

  #abandon(batch: ModelBatch, keys: readonly string[]): void {
    this.abandoned.push({ batchId: batch.id, keys, isLookedAt: false })
    this.batches.delete(batch.id)
  }
}

export function bytesOf(batch: ModelBatch): number {
  return batch.requests.reduce((sum, { staged }) => sum + staged.payload.length, 0)
}

function byId(a: { id: bigint }, b: { id: bigint }): number {
  return a.id < b.id ? -1 : 1
}
