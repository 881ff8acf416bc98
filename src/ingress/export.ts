import type { Clock } from '../foundation/clock.ts'
import { asFailure } from '../foundation/failure.ts'
import { freeMemory } from '../foundation/memory.ts'
import type { Format } from '../otlp/answer.ts'
import {
  BodyTooLargeError,
  isIdentity,
  isKnownEncoding,
  pack,
  type Unpacked,
  unpack,
} from '../otlp/compression.ts'
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

/** Why there was no room: as it is logged. */
type NoRoom = 'max_inflight_bytes' | 'large_bodies'

interface Opened {
  readonly read: ReadRequest
  /** The body as it came, if it is gzip that may be kept. */
  readonly gzip: Buffer | undefined
  /** Whether it came without an encoding. */
  readonly cameAsItIs: boolean
}

/** What the way of an export needs. */
export interface ExportOptions {
  /** It keeps nothing of a row whose `append` has resolved. */
  stager: { append(row: StagedRow): Promise<void> }
  overflow: { decide(bytes: number): OverflowDecision; settled(bytes: number, committed: boolean): void }
  maxBodyBytes: number
  /** Whether what comes without an encoding is packed before it is staged. */
  packsAll?: boolean
  /** Keeps how long it takes; undefined when nobody asks. */
  answerTimes?: AnswerTimes | undefined
  events: IngressEvents
  clock: Clock
}

/** Unpacked bodies up to this length are read where we stand: the worst of them holds everybody else for 33 ms. */
export const READ_AT_ONCE_BYTES_MAX = 1024 ** 2
/** What is shorter gains next to nothing by being packed. */
const PACKED_BYTES_MIN = 1024
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
    const { signal, requestId } = request
    const opened = await this.#open(request)
    if (typeof opened === 'string') return this.#noRoom(requestId, opened)
    const { read, gzip } = opened
    // What came compressed is kept compressed: as it came if those very bytes are what was read, else packed again.
    const isKept =
      opened.cameAsItIs && !(this.#options.packsAll === true && read.body.length >= PACKED_BYTES_MIN)
    const encoding: Encoding = isKept ? 'identity' : 'gzip'
    this.#options.events.walked(signal, read.items, read.repairedStrings)
    // Only what says nothing at all is not staged: a request of unknown fields alone may be a newer sender's data.
    if (read.body.length === 0) return accepted

    const unpackedBytes = read.body.length
    let payload = read.body
    if (encoding === 'gzip') {
      payload = gzip !== undefined && read.asItCame ? gzip : await pack(read.body)
      freeMemory(read.body)
    }

    if (payload.length > PAYLOAD_BYTES_MAX) {
      const message = `the request would be stored as ${payload.length} bytes; a row holds at most ${PAYLOAD_BYTES_MAX}`
      return { kind: 'too_large', message }
    }

    const decision = this.#options.overflow.decide(payload.length)
    switch (decision.outcome) {
      case 'stage':
        return this.#stage(request, read, { encoding, payload, unpackedBytes })
      case 'reject':
        freeMemory(payload)
        this.#options.events.queueSaturated(requestId, signal)
        return { kind: 'queue_full', message: 'the queue is full', waitedMs: 0 }
      case 'drop':
        freeMemory(payload)
        this.#options.events.loadShedding(requestId, signal, decision.policy, read.items)
        return { kind: 'dropped', items: read.items, policy: decision.policy }
    }
  }

  #noRoom(requestId: string, reason: NoRoom): Outcome {
    this.#options.events.inFlightFull(requestId, reason)
    return noRoom
  }

  /**
   * Unpacks a body and reads it: a small one at once, a large one when its turn has come. Memory is bounded by the in-flight
   * budget, which gives beforehand as much as the body promises, and by the few bodies in their turn, which may break
   * their promise.
   */
  async #open(request: ExportRequest): Promise<Opened | NoRoom> {
    const { contentEncoding, body, reservation } = request
    const { maxBodyBytes } = this.#options
    const isPacked = !isIdentity(contentEncoding)
    const promisedBytes = isPacked ? Math.min(maxBodyBytes, promisedSize(contentEncoding, body)) : body.length
    if (promisedBytes <= READ_AT_ONCE_BYTES_MAX) {
      if (isPacked && !reservation.take(promisedBytes)) return 'max_inflight_bytes'
      try {
        return await this.#read(request, await unpack(contentEncoding, body, promisedBytes))
      } catch (thrown) {
        if (!(thrown instanceof BodyTooLargeError) || promisedBytes === maxBodyBytes) throw thrown
      }
    }
    return (await this.#largeBodies.inTurn(() => this.#openLarge(request, promisedBytes))) ?? 'large_bodies'
  }

  async #openLarge(request: ExportRequest, promisedBytes: number): Promise<Opened | NoRoom> {
    const { contentEncoding, body, reservation } = request
    const { maxBodyBytes } = this.#options
    if (isIdentity(contentEncoding)) return this.#read(request, await unpack(undefined, body, maxBodyBytes))
    const heldBytes = promisedBytes <= READ_AT_ONCE_BYTES_MAX ? promisedBytes : 0
    if (!reservation.take(promisedBytes - heldBytes)) return 'max_inflight_bytes'
    let unpacked: Unpacked | undefined
    try {
      if (heldBytes === 0) unpacked = await unpack(contentEncoding, body, promisedBytes)
    } catch (thrown) {
      if (!(thrown instanceof BodyTooLargeError) || promisedBytes === maxBodyBytes) throw thrown
    }
    if (unpacked === undefined) {
      unpacked = await unpack(contentEncoding, body, maxBodyBytes)
      if (!reservation.take(unpacked.bytes.length - promisedBytes)) {
        freeMemory(unpacked.bytes)
        return 'max_inflight_bytes'
      }
    }
    return this.#read(request, unpacked)
  }

  async #read(
    { signal, format, body, reservation }: ExportRequest,
    { bytes, gzip }: Unpacked,
  ): Promise<Opened | NoRoom> {
    const cameAsItIs = bytes === body
    const bytesRead = bytes.length
    const isLarge = bytesRead > READ_AT_ONCE_BYTES_MAX
    const read = isLarge
      ? await this.#largeBodies.read(signal, format, bytes)
      : readRequest(signal, format, bytes)
    if (read.asItCame) return { read, gzip, cameAsItIs }
    // Of a large body only what it became is left; a smaller one is there until its request is answered.
    const isTaken = isLarge
      ? reservation.exchange(bytesRead, read.body.length)
      : reservation.take(read.body.length)
    if (isTaken) return { read, gzip, cameAsItIs }
    freeMemory(read.body)
    return 'max_inflight_bytes'
  }

  async #stage(
    { signal, tenant, requestId }: ExportRequest,
    { items, summary }: ReadRequest,
    { encoding, payload, unpackedBytes }: { encoding: Encoding; payload: Buffer; unpackedBytes: number },
  ): Promise<Outcome> {
    const { stager, overflow, events, clock } = this.#options
    const startedMs = clock.monotonicMs()
    const payloadBytes = payload.length
    let committed = false
    try {
      const row = {
        signal,
        tenant,
        encoding,
        items,
        unpackedBytes,
        requestId,
        summary,
        payload,
      }
      await stager.append(row)
      committed = true
      events.staged(row)
      // Not after a failure: what could not be sent may still wait in a stream.
      freeMemory(payload)
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
      overflow.settled(payloadBytes, committed)
    }
  }
}

/** The outcome for a request for whose bytes there is no room now. */
export const noRoom: Outcome = { kind: 'no_room', message: 'too many bytes are in flight' }
const accepted: Outcome = { kind: 'accepted' }

/** What a body will be when unpacked, as far as it says: gzip ends with the length of its last member (RFC 1952, 2.3.1). */
function promisedSize(contentEncoding: string | undefined, body: Buffer): number {
  // An encoding that nobody knows is refused at once.
  if (contentEncoding === undefined || !isKnownEncoding(contentEncoding)) return 0
  if (!contentEncoding.includes('gzip') || body.length < 18) return body.length * EXPECTED_RATIO
  return Math.max(body.length, body.readUInt32LE(body.length - 4))
}

/** The sentence for a body over the limit, `as` it came or unpacked. */
export function tooLargeMessage(limitBytes: number, as: 'sent' | 'unpacked'): string {
  return as === 'sent'
    ? `the body is larger than ${limitBytes} bytes`
    : `the body is larger than ${limitBytes} bytes when unpacked`
}
