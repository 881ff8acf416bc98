import pLimit from 'p-limit'
import type { Clock } from '../foundation/clock.ts'
import { asFailure } from '../foundation/failure.ts'
import type { Format } from '../otlp/answer.ts'
import { BodyTooLargeError, pack, type Unpacked, unpack } from '../otlp/compression.ts'
import { OtlpError } from '../otlp/error.ts'
import { type ReadRequest, readRequest } from '../otlp/read-request.ts'
import type { Encoding, Signal } from '../otlp/signal.ts'
import type { StagedRow } from '../queue/copy-format.ts'
import type { OverflowDecision } from '../queue/overflow.ts'
import type { AnswerTimes } from './answer-times.ts'
import type { IngressEvents } from './events.ts'
import { LargeBodies } from './large-bodies.ts'
import type { Outcome } from './outcome.ts'
import type { Reservation } from './reservation.ts'

/** One OTLP request whose body has been read. `reservation` already holds the bytes of `body`. */
export interface ExportRequest {
  readonly signal: Signal
  readonly format: Format
  /** As the header says it; undefined for none. */
  readonly contentEncoding: string | undefined
  readonly body: Buffer
  readonly tenant: string
  readonly requestId: string
  readonly reservation: Reservation
}

/** What the way of an export needs. */
export interface ExportOptions {
  stager: { append(row: StagedRow): Promise<void> }
  overflow: { decide(bytes: number): OverflowDecision; settled(bytes: number, committed: boolean): void }
  maxBodyBytes: number
  /** Keeps how long it takes; undefined when nobody asks. */
  answerTimes?: AnswerTimes | undefined
  events: IngressEvents
  clock: Clock
}

/** Unpacked bodies up to this length are read where we stand: the worst of them holds everybody else for 33 ms. */
export const READ_AT_ONCE_BYTES_MAX = 1024 ** 2
/** Bodies that became larger than they promised are unpacked so many at a time; see `#unpack`. */
const UNPACKING_MAX = 3
/** More than this are not let wait for it: each takes a tenth of a second, and a sender waits ten. */
const UNPACKING_WAITING_MAX = 32
/** How much more comes out of a body that does not say it: OTLP shrinks to a seventh, or to less the larger it is. */
const EXPECTED_RATIO = 16

/**
 * What a row may hold. The relay's driver reads a `bytea` as hexadecimal text, and a string of V8 ends at 2^29 − 24
 * characters: a larger payload could be stored and never be read again.
 */
const PAYLOAD_BYTES_MAX = 255 * 1024 ** 2

/**
 * The way of every export from its bytes to its commit, the same for all signals, formats and protocols:
 * decompress, read (JSON becomes protobuf), overflow policy, stage.
 */
export class ExportPath {
  readonly #options: ExportOptions
  readonly #gate = pLimit(UNPACKING_MAX)
  readonly #largeBodies: LargeBodies

  constructor(options: ExportOptions) {
    this.#options = options
    this.#largeBodies = new LargeBodies(options.clock)
  }

  /**
   * Resolves when the outcome is certain: `accepted` only after the commit. Never rejects; what nobody classified
   * is logged once and becomes the outcome `bug`.
   */
  async accept(request: ExportRequest): Promise<Outcome> {
    const { answerTimes, clock } = this.#options
    if (answerTimes === undefined) return this.#acceptSafely(request)
    const startedMs = clock.monotonicMs()
    const outcome = await this.#acceptSafely(request)
    // Every other outcome is certain without the database, and comes the sooner the less of a request is good.
    if (outcome.kind === 'accepted' || outcome.kind === 'staging_away') {
      answerTimes.record(clock.monotonicMs() - startedMs)
    }
    return outcome
  }

  async #acceptSafely(request: ExportRequest): Promise<Outcome> {
    try {
      return await this.#accept(request)
    } catch (thrown) {
      if (thrown instanceof OtlpError) return { kind: 'malformed', message: thrown.message }
      if (thrown instanceof BodyTooLargeError) {
        return { kind: 'too_large', message: tooLargeMessage(this.#options.maxBodyBytes, 'unpacked') }
      }
      this.#options.events.failed(request.requestId, thrown)
      return { kind: 'bug', message: 'the request could not be handled; it may be sent again' }
    }
  }

  async #accept(request: ExportRequest): Promise<Outcome> {
    const { signal, format, body, requestId, reservation } = request
    const unpacked = await this.#unpack(request)
    if (unpacked === undefined) return this.#noRoom(requestId)
    const { bytes, gzip } = unpacked
    // What came compressed is kept compressed: as it came if those very bytes are what was read, else packed again.
    const encoding: Encoding = bytes === body ? 'identity' : 'gzip'
    const read =
      bytes.length > READ_AT_ONCE_BYTES_MAX
        ? await this.#largeBodies.read(signal, format, bytes)
        : readRequest(signal, format, bytes)
    if (read === undefined) return this.#noRoom(requestId, 'large_bodies')
    if (!read.asItCame && !reservation.take(read.body.length)) return this.#noRoom(requestId)
    this.#options.events.walked(signal, read.items, read.repairedStrings)
    // Only what says nothing at all is not staged: a request of unknown fields alone may be a newer sender's data.
    if (read.body.length === 0) return accepted

    let payload = read.body
    if (encoding === 'gzip') payload = gzip !== undefined && read.asItCame ? gzip : await pack(read.body)

    if (payload.length > PAYLOAD_BYTES_MAX) {
      const message = `the request would be stored as ${payload.length} bytes; a row holds at most ${PAYLOAD_BYTES_MAX}`
      return { kind: 'too_large', message }
    }

    const decision = this.#options.overflow.decide(payload.length)
    switch (decision.outcome) {
      case 'stage':
        return this.#stage(request, read, { encoding, payload })
      case 'reject':
        this.#options.events.queueSaturated(requestId, signal)
        return { kind: 'queue_full', message: 'the queue is full', waitedMs: 0 }
      case 'drop':
        this.#options.events.loadShedding(requestId, signal, decision.policy, read.items)
        return { kind: 'dropped', items: read.items, policy: decision.policy }
    }
  }

  #noRoom(requestId: string, reason: 'max_inflight_bytes' | 'large_bodies' = 'max_inflight_bytes'): Outcome {
    this.#options.events.inFlightFull(requestId, reason)
    return noRoom
  }

  /**
   * Unpacks within what the in-flight budget gave beforehand: as much as the body promises. Bodies that break the
   * promise are unpacked again, a few at a time, up to the limit of one body; so memory is bounded by the budget
   * and `UNPACKING_MAX` bodies beyond it. Undefined when there is no room.
   */
  async #unpack({ contentEncoding, body, reservation }: ExportRequest): Promise<Unpacked | undefined> {
    const { maxBodyBytes } = this.#options
    if (contentEncoding === undefined) return unpack(undefined, body, maxBodyBytes)
    const promisedBytes = Math.min(maxBodyBytes, promisedSize(contentEncoding, body))
    if (!reservation.take(promisedBytes)) return undefined
    try {
      return await unpack(contentEncoding, body, promisedBytes)
    } catch (thrown) {
      if (!(thrown instanceof BodyTooLargeError) || promisedBytes === maxBodyBytes) throw thrown
    }
    if (this.#gate.pendingCount >= UNPACKING_WAITING_MAX) return undefined
    const unpacked = await this.#gate(() => unpack(contentEncoding, body, maxBodyBytes))
    return reservation.take(unpacked.bytes.length - promisedBytes) ? unpacked : undefined
  }

  async #stage(
    { signal, tenant, requestId }: ExportRequest,
    { items, summary, body }: ReadRequest,
    { encoding, payload }: { encoding: Encoding; payload: Buffer },
  ): Promise<Outcome> {
    const { stager, overflow, events, clock } = this.#options
    const startedMs = clock.monotonicMs()
    let committed = false
    try {
      const row = {
        signal,
        tenant,
        encoding,
        items,
        unpackedBytes: body.length,
        requestId,
        summary,
        payload,
      }
      await stager.append(row)
      committed = true
      events.staged(row)
      return accepted
    } catch (thrown) {
      const failure = asFailure(thrown)
      if (failure.kind === 'data') {
        events.refusedByStaging(requestId, failure)
        return { kind: 'malformed', message: `the request cannot be stored: ${failure.message}` }
      }
      if (failure.kind !== 'outage') throw thrown
      events.stagingAway(requestId, failure)
      const waitedMs = clock.monotonicMs() - startedMs
      return { kind: 'staging_away', message: 'the request could not be staged; send it again', waitedMs }
    } finally {
      overflow.settled(payload.length, committed)
    }
  }
}

/** The outcome for a request for whose bytes there is no room now. */
export const noRoom: Outcome = { kind: 'no_room', message: 'too many bytes are in flight' }
const accepted: Outcome = { kind: 'accepted' }

/** What a body will be when unpacked, as far as it says: gzip ends with the length of its last member (RFC 1952, 2.3.1). */
function promisedSize(contentEncoding: string, body: Buffer): number {
  if (!contentEncoding.includes('gzip') || body.length < 18) return body.length * EXPECTED_RATIO
  return Math.max(body.length, body.readUInt32LE(body.length - 4))
}

/** The sentence for a body over the limit, `as` it came or unpacked. */
export function tooLargeMessage(limitBytes: number, as: 'sent' | 'unpacked'): string {
  return as === 'sent'
    ? `the body is larger than ${limitBytes} bytes`
    : `the body is larger than ${limitBytes} bytes when unpacked`
}
