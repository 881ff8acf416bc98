import { ByteBudget } from '../src/foundation/byte-budget.ts'
import { systemClock } from '../src/foundation/clock.ts'
import { IngressEvents } from '../src/ingress/events.ts'
import { ExportPath } from '../src/ingress/export.ts'
import { unframe } from '../src/ingress/grpc-framing.ts'
import type { Outcome } from '../src/ingress/outcome.ts'
import { Reservation } from '../src/ingress/reservation.ts'
import { BodyTooLargeError, unpack } from '../src/otlp/compression.ts'
import { OtlpError, type OtlpRule } from '../src/otlp/error.ts'
import { protobufFromJson } from '../src/otlp/json-to-protobuf.ts'
import type { Signal } from '../src/otlp/signal.ts'
import { walk } from '../src/otlp/walk.ts'
import type { StagedRow } from '../src/queue/copy-format.ts'
import { createLogger } from '../src/telemetry/log.ts'
import { createMetrics } from '../src/telemetry/metrics.ts'
import type { FuzzBody } from './fuzz-bodies.ts'

/** Most bytes of a body, also unpacked. Lower than the program's, so that bombs are cheap to make. */
export const maxBodyBytes = 4 * 1024 * 1024

/** Which rule refuses a body: of the request, of what it is packed with, of the frame of a call, or its size. */
export type RefusalRule = OtlpRule | 'compression' | 'frame' | 'size'

/** What became of a body. */
export interface Tried {
  readonly outcome: Outcome
  /** What would be stored; undefined when it is refused, or says nothing. */
  readonly row: StagedRow | undefined
  readonly repairedStrings: number
  /** CPU time of this thread from the body to its row, in milliseconds: no part of it holds the event loop for longer. */
  readonly holdMs: number
  /** Bytes of the in-flight budget that were not given back. */
  readonly leakedBytes: number
  /** What nobody expected to be thrown. */
  readonly bug: unknown
}

class CollectingEvents extends IngressEvents {
  repairedStrings = 0
  bug: unknown

  override walked(signal: Signal, items: number, repairedStrings: number): void {
    super.walked(signal, items, repairedStrings)
    this.repairedStrings += repairedStrings
  }

  override failed(requestId: string, error: unknown): void {
    super.failed(requestId, error)
    this.bug = error
  }
}

/** The way of a request from its bytes to its row, without the listeners before it and the database behind it. */
export class FuzzTarget {
  readonly #budget = new ByteBudget(8 * maxBodyBytes)
  readonly #events = new CollectingEvents({
    log: createLogger({ level: 'silent', clock: systemClock, destination: { write: () => undefined } }),
    metrics: createMetrics(),
    transport: 'http',
  })
  readonly #path: ExportPath
  #row: StagedRow | undefined

  constructor() {
    this.#path = new ExportPath({
      stager: {
        append: async (row) => {
          // Its memory is given back when this promise has settled.
          this.#row = { ...row, payload: Buffer.from(row.payload) }
        },
      },
      overflow: { decide: () => ({ outcome: 'stage' }), settled: () => undefined },
      maxBodyBytes,
      events: this.#events,
      clock: systemClock,
    })
  }

  async try(body: FuzzBody): Promise<Tried> {
    this.#row = undefined
    this.#events.repairedStrings = 0
    this.#events.bug = undefined
    const reservation = new Reservation(this.#budget)
    const before = process.threadCpuUsage()
    const outcome = await this.#outcome(body, reservation)
    const { user, system } = process.threadCpuUsage(before)
    reservation.release()
    return {
      outcome,
      row: this.#row,
      repairedStrings: this.#events.repairedStrings,
      holdMs: (user + system) / 1000,
      leakedBytes: this.#budget.usedBytes,
      bug: this.#events.bug,
    }
  }

  async #outcome(body: FuzzBody, reservation: Reservation): Promise<Outcome> {
    reservation.take(body.body.length)
    // Its memory is given back when its bytes are staged.
    let bytes: Buffer = Buffer.from(body.body)
    let packed = true
    if (body.framed) {
      // As the gRPC listener does it.
      try {
        const { compressed, message } = unframe(bytes)
        if (compressed && body.encoding === 'identity')
          return { kind: 'malformed', message: 'compressed with nothing' }
        bytes = message
        packed = compressed
      } catch (error) {
        if (error instanceof OtlpError) return { kind: 'malformed', message: error.message }
        throw error
      }
    }
    return this.#path.accept({
      signal: body.signal,
      format: body.format,
      contentEncoding: packed && body.encoding !== 'identity' ? body.encoding : undefined,
      body: bytes,
      tenant: 'default',
      requestId: 'fuzz',
      reservation,
    })
  }
}

/** The request in a body, without its frame and packing. Answers the rule where that cannot be had. */
export async function contentOf({ body, framed, encoding }: FuzzBody): Promise<Buffer | RefusalRule> {
  let bytes = body
  let packed = true
  if (framed) {
    try {
      const { compressed, message } = unframe(body)
      if (compressed && encoding === 'identity') return 'frame'
      bytes = message
      packed = compressed
    } catch {
      return 'frame'
    }
  }
  if (!packed || encoding === 'identity') return bytes
  try {
    return (await unpack(encoding, bytes, maxBodyBytes)).bytes
  } catch (error) {
    return error instanceof BodyTooLargeError ? 'size' : 'compression'
  }
}

/** The rule by which a refused body was refused; undefined when nothing here refuses it. */
export async function refusalRule(body: FuzzBody): Promise<RefusalRule | undefined> {
  const content = await contentOf(body)
  if (typeof content === 'string') return content
  try {
    walk(body.signal, body.format === 'json' ? protobufFromJson(body.signal, content) : content)
    return undefined
  } catch (error) {
    return error instanceof OtlpError ? error.rule : undefined
  }
}
