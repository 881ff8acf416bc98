import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { createConnection, type Socket } from 'node:net'
import { Writable } from 'node:stream'
import protobuf from 'protobufjs'
import { ByteBudget } from '../../src/foundation/byte-budget.ts'
import { systemClock } from '../../src/foundation/clock.ts'
import { IngressEvents } from '../../src/ingress/events.ts'
import { ExportPath } from '../../src/ingress/export.ts'
import { HttpIngress, type HttpIngressOptions } from '../../src/ingress/http.ts'
import { RateLimit } from '../../src/ingress/rate-limit.ts'
import type { StagedRow } from '../../src/queue/copy-format.ts'
import type { OverflowDecision } from '../../src/queue/overflow.ts'
import { createLogger, type Log } from '../../src/telemetry/log.ts'
import { createMetrics, type Metrics } from '../../src/telemetry/metrics.ts'

/** The media type of OTLP/HTTP in protobuf. */
export const PROTOBUF = 'application/x-protobuf'
/** The media type of OTLP/HTTP in JSON. */
export const JSON_TYPE = 'application/json'

/** One span in protobuf: trace id, span id and name, in one ResourceSpans and one ScopeSpans. */
export const oneSpan = nested(
  [0x0a, 0x12, 0x12],
  Buffer.concat([field(0x0a, Buffer.alloc(16, 7)), field(0x12, Buffer.alloc(8, 7)), field(0x2a, 'n')]),
)

/** A valid request of exactly so many bytes: one span whose name is padded. Needs more than 50 bytes. */
export function spanOfBytes(bytes: number): Buffer {
  let padding = bytes - 60
  for (;;) {
    const span = Buffer.concat([
      field(0x0a, Buffer.alloc(16, 7)),
      field(0x12, Buffer.alloc(8, 7)),
      field(0x2a, Buffer.alloc(padding, 0x61)),
    ])
    const body = nested([0x0a, 0x12, 0x12], span)
    if (body.length === bytes) return body
    padding += bytes - body.length
  }
}

function field(tag: number, content: Buffer | string): Buffer {
  const bytes = Buffer.from(content)
  const head = [tag]
  let left = bytes.length
  do {
    head.push((left & 127) | (left > 127 ? 128 : 0))
    left >>>= 7
  } while (left > 0)
  return Buffer.concat([Buffer.from(head), bytes])
}

function nested(tags: number[], content: Buffer): Buffer {
  return tags.reduceRight((inner, tag) => field(tag, inner), content)
}

/** A request of a real SDK, from `test/payloads`. */
export function payload(name: string): Buffer {
  return readFileSync(new URL(`../payloads/${name}`, import.meta.url))
}

/** Takes rows as the staging queue does, and fails or waits when told to. */
export class FakeStager {
  readonly rows: StagedRow[] = []
  /** How many rows have been handed over, committed or not. */
  appended = 0
  failure: Error | undefined
  #held: Promise<void> | undefined
  #waiters: { count: number; resolve: () => void }[] = []

  async append(row: StagedRow): Promise<void> {
    this.appended++
    for (const waiter of this.#waiters) if (this.appended >= waiter.count) waiter.resolve()
    await this.#held
    if (this.failure !== undefined) throw this.failure
    // As the real one does: the memory of the row is given back when this promise has settled.
    this.rows.push({ ...row, payload: Buffer.from(row.payload) })
  }

  /** From now on commits wait; call the answer to let them all go. */
  hold(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#held = promise
    return () => {
      this.#held = undefined
      resolve()
    }
  }

  async whenAppended(count: number): Promise<void> {
    if (this.appended >= count) return
    await new Promise<void>((resolve) => this.#waiters.push({ count, resolve }))
  }
}

/** A listener that runs, and what a test may ask of it. */
export interface Ingress {
  readonly port: number
  readonly http: HttpIngress
  readonly stager: FakeStager
  readonly budget: ByteBudget
  readonly metrics: Metrics
  readonly settled: { bytes: number; committed: boolean }[]
  /** The log so far. Every line is JSON, or reading this throws. */
  lines(): Record<string, unknown>[]
  /** Replaces what the overflow policy answers. */
  decide(decision: OverflowDecision): void
  [Symbol.asyncDispose](): Promise<void>
}

/** A real listener on a free port with a fake behind it; everything else is what runs in production. */
export async function serveIngress(
  options: Partial<Omit<HttpIngressOptions, 'rateLimit'>> & {
    rateLimit?: { perSecond: number; burst: number }
    inflightBytes?: number
    packsAll?: boolean
  } = {},
): Promise<Ingress> {
  const { log, lines } = collectingLog()
  const metrics = createMetrics()
  const events = new IngressEvents({ log, metrics, transport: 'http' })
  const stager = new FakeStager()
  const settled: { bytes: number; committed: boolean }[] = []
  let decision: OverflowDecision = { outcome: 'stage' }
  const overflow = {
    decide: () => decision,
    settled: (bytes: number, committed: boolean) => void settled.push({ bytes, committed }),
  }
  const maxBodyBytes = options.maxBodyBytes ?? 20 * 1024 * 1024
  const budget = new ByteBudget(options.inflightBytes ?? 128 * 1024 * 1024)
  const ingress = new HttpIngress({
    host: '127.0.0.1',
    port: 0,
    socketPath: undefined,
    tls: undefined,
    signals: ['traces', 'metrics', 'logs'],
    exportPath: new ExportPath({
      stager,
      overflow,
      maxBodyBytes,
      packsAll: options.packsAll ?? false,
      events,
      clock: systemClock,
    }),
    budget,
    requestTimeoutMs: 60_000,
    cors: undefined,
    droppedStatus: 202,
    loadShedding: undefined,
    refusal: () => undefined,
    events,
    clock: systemClock,
    random: Math.random,
    ...options,
    maxBodyBytes,
    rateLimit: options.rateLimit && new RateLimit({ ...options.rateLimit, clock: systemClock }),
  })
  await ingress.start()
  return {
    port: ingress.address.port,
    http: ingress,
    stager,
    budget,
    metrics,
    settled,
    lines,
    decide: (next) => {
      decision = next
    },
    async [Symbol.asyncDispose]() {
      await ingress.stop(AbortSignal.abort())
      await log.close()
    },
  }
}

/** A log whose lines can be read back. */
export function collectingLog(): { log: Log; lines: () => Record<string, unknown>[] } {
  let text = ''
  const destination = new Writable({
    write(chunk, _encoding, done) {
      text += chunk
      done()
    },
  })
  const log = createLogger({ level: 'debug', clock: systemClock, destination })
  const lines = () =>
    text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
  return { log, lines }
}

/** A whole answer. */
export interface Answer {
  readonly status: number
  readonly headers: http.IncomingHttpHeaders
  readonly body: Buffer
}

/** What to send; what is left out is that of an export of traces in protobuf. */
export interface Request {
  method?: string
  path?: string
  headers?: http.OutgoingHttpHeaders
  body?: Buffer
  agent?: http.Agent
}

/** Sends one request with its length declared and reads the whole answer. */
export async function send(port: number, request: Request = {}): Promise<Answer> {
  const {
    method = 'POST',
    path = '/v1/traces',
    headers = { 'content-type': PROTOBUF },
    body,
    agent,
  } = request
  const length = body === undefined ? {} : { 'content-length': body.length }
  const outgoing = http.request({
    host: '127.0.0.1',
    port,
    method,
    path,
    headers: { ...headers, ...length },
    agent: agent ?? false,
  })
  outgoing.end(body)
  const [response] = (await once(outgoing, 'response')) as [http.IncomingMessage]
  // With the whole answer here it is no matter how the connection of a refused upload ends.
  outgoing.on('error', () => undefined)
  const parts: Buffer[] = []
  for await (const part of response) parts.push(part as Buffer)
  return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(parts) }
}

/** A connection that sends exactly the bytes it is told to. */
export class RawConnection {
  readonly socket: Socket
  readonly opened: Promise<void>
  readonly closed: Promise<void>
  #received = ''
  #changed = Promise.withResolvers<void>()

  constructor(port: number) {
    this.socket = createConnection({ host: '127.0.0.1', port, allowHalfOpen: true })
    this.socket.setNoDelay(true)
    this.socket.on('data', (chunk: Buffer) => {
      this.#received += chunk.toString('latin1')
      this.#notify()
    })
    this.socket.on('error', () => this.#notify())
    this.opened = new Promise((resolve) => this.socket.once('connect', () => resolve()))
    this.closed = new Promise((resolve) => {
      for (const event of ['end', 'close']) {
        this.socket.on(event, () => {
          resolve()
          this.#notify()
        })
      }
    })
  }

  /** Everything received so far, one character a byte. */
  get received(): string {
    return this.#received
  }

  write(bytes: string | Buffer): this {
    this.socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes)
    return this
  }

  /** Resolves with everything received once `pattern` is in it; throws when the connection ends before. */
  async until(pattern: RegExp): Promise<string> {
    while (!pattern.test(this.#received)) {
      if (this.socket.readableEnded || this.socket.destroyed) {
        throw new Error(`the connection ended with ${JSON.stringify(this.#received)}`)
      }
      await this.#changed.promise
    }
    return this.#received
  }

  #notify(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers<void>()
  }
}

/** The head of a raw POST to /v1/traces with further header lines. */
export function head(...lines: string[]): string {
  return ['POST /v1/traces HTTP/1.1', 'Host: localhost', `Content-Type: ${PROTOBUF}`, ...lines, '', ''].join(
    '\r\n',
  )
}

/** Bytes as one chunk of chunked transfer coding, without the last one. */
export function chunk(bytes: Buffer, extension = ''): Buffer {
  return Buffer.concat([
    Buffer.from(`${bytes.length.toString(16)}${extension}\r\n`),
    bytes,
    Buffer.from('\r\n'),
  ])
}

/** The chunk that ends a body. */
export const lastChunk = Buffer.from('0\r\n\r\n')

const messages = protobuf.parse(`
  syntax = "proto3";
  message Status { int32 code = 1; string message = 2; }
  message Partial { int64 rejected = 1; string error_message = 2; }
  message Response { Partial partial_success = 1; }
`).root

/** google.rpc.Status in either format, decoded by another implementation than ours. */
export function readStatus(answer: Answer): { code: number; message: string } {
  if (answer.headers['content-type'] === JSON_TYPE) return JSON.parse(answer.body.toString())
  const type = messages.lookupType('Status')
  return type.toObject(type.decode(answer.body)) as { code: number; message: string }
}

/** Export…ServiceResponse in protobuf; the counters of all signals have the same field numbers. */
export function readResponse(body: Buffer): unknown {
  const type = messages.lookupType('Response')
  return type.toObject(type.decode(body), { longs: Number })
}
