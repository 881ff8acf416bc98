import http from 'node:http'
import { setTimeout as wait } from 'node:timers/promises'
import { markerOf } from '../generator.ts'
import type { Answer } from '../http-client.ts'
import { type Ledger, type LedgerEntry, promisedBy } from '../ledger.ts'
import type { Ingress } from '../machine.ts'
import type { HeavyBody } from './heavy-body.ts'

const answerWithinMs = 60_000
/** Sooner than any honest sender comes again. */
const againAfterMs = 100

/** Sends heavy bodies from many connections at once, and writes each into the ledger with its answer. */
export class HeavySender {
  readonly #run: string
  readonly #ledger: Ledger
  readonly #ingress: Ingress
  #index = 0

  constructor(run: string, ledger: Ledger, ingress: Ingress) {
    this.#run = run
    this.#ledger = ledger
    this.#ingress = ingress
  }

  /** Sends from `lanes` connections until so many requests were taken, or so many sent. What is refused is not sent again. */
  async send(
    bodies: readonly HeavyBody[],
    lanes: number,
    until: { taken: number; sent: number },
  ): Promise<void> {
    const agent = new http.Agent({ keepAlive: true, maxSockets: lanes })
    let [taken, sent] = [0, 0]
    const lane = async (): Promise<void> => {
      while (taken < until.taken && sent < until.sent) {
        const body = bodies[sent++ % bodies.length] as HeavyBody
        const { promised } = await this.#sendOne(body, agent)
        if (promised === 'stored') taken++
        else await wait(againAfterMs)
      }
    }
    await Promise.all(Array.from({ length: lanes }, lane))
    agent.destroy()
  }

  async #sendOne(body: HeavyBody, agent: http.Agent): Promise<LedgerEntry> {
    const marker = markerOf(this.#run, this.#index++)
    const answer = await post(this.#ingress.url, body, marker, agent)
    return this.#ledger.add({
      marker,
      signal: body.signal,
      items: body.items,
      answer,
      promised: promisedBy(answer),
      equals: (stored) => body.isStored(marker, stored),
    })
  }
}

/** A server that refuses a body may answer before it has come whole, and close: that is an answer, too. */
function post(ingress: URL, body: HeavyBody, marker: string, agent: http.Agent): Promise<Answer> {
  const parts = body.parts(marker)
  const startedMs = performance.now()
  const { promise, resolve } = Promise.withResolvers<Answer>()
  const lost = (why: string) => resolve({ kind: 'lost', why, tookMs: performance.now() - startedMs })
  const outgoing = http.request(new URL(`/v1/${body.signal}`, ingress), {
    method: 'POST',
    agent,
    signal: AbortSignal.timeout(answerWithinMs),
    headers: {
      'Content-Type': body.contentType,
      'Content-Length': parts[0].length + parts[1].length,
      ...(body.encoding === 'gzip' ? { 'Content-Encoding': 'gzip' } : {}),
    },
  })
  outgoing.on('error', (error) => lost(error.message))
  outgoing.on('response', (incoming) => {
    const chunks: Buffer[] = []
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
    incoming.on('error', (error) => lost(error.message))
    incoming.on('end', () => {
      const retryAfter = incoming.headers['retry-after']
      resolve({
        kind: 'answered',
        status: incoming.statusCode ?? 0,
        retryAfter: typeof retryAfter === 'string' ? retryAfter : undefined,
        contentType: incoming.headers['content-type'],
        body: Buffer.concat(chunks),
        tookMs: performance.now() - startedMs,
      })
    })
  })
  outgoing.write(parts[0])
  outgoing.end(parts[1])
  return promise
}
