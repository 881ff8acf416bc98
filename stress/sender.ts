import { setTimeout as wait } from 'node:timers/promises'
import { type GeneratedRequest, type GeneratorOptions, generateRequest } from './generator.ts'
import { HttpClient } from './http-client.ts'
import type { Ledger, LedgerEntry } from './ledger.ts'
import type { Ingress } from './machine.ts'

export interface SendOptions {
  generator: GeneratorOptions
  ledger: Ledger
  ingresses: readonly Ingress[]
  /** False where every request needs its answer: no client goes away before it. */
  hangUps: boolean
}

/**
 * Sends the requests of a generator, one index after the other, to the ingresses in turn, and writes each into the
 * ledger with its answer. Everything that it starts is over when the promise that it answers resolves.
 */
export class Sender {
  readonly #options: SendOptions
  readonly #client = new HttpClient(64)
  #index = 0

  constructor(options: SendOptions) {
    this.#options = options
  }

  /** Sends `count` requests, `atOnce` at a time, and resolves with their entries. */
  async send(count: number, atOnce: number, until?: AbortSignal): Promise<LedgerEntry[]> {
    const entries: LedgerEntry[] = []
    let left = count
    const lane = async (): Promise<void> => {
      while (left > 0 && until?.aborted !== true) {
        left--
        entries.push(await this.sendNext())
      }
    }
    await Promise.all(Array.from({ length: atOnce }, lane))
    return entries
  }

  /**
   * Sends `perSecond` requests a second for `seconds`, each at its own moment, however long the answers take.
   * Resolves with their entries when the last answer is there.
   */
  async sendAtRate(perSecond: number, seconds: number): Promise<LedgerEntry[]> {
    const first = this.#index
    // Making them on the way would cost the time in which they are to be sent.
    const requests = this.prepare(Math.round(perSecond * seconds))
    const startedMs = performance.now()
    const sending: Promise<LedgerEntry>[] = []
    while (sending.length < requests.length) {
      const due = ((performance.now() - startedMs) / 1000) * perSecond
      for (const request of requests.slice(sending.length, Math.floor(due))) {
        sending.push(this.#sendAs(request, first + sending.length))
      }
      await wait(2)
    }
    return Promise.all(sending)
  }

  /** Makes the next requests without sending them, for scenarios in which making them would cost the time measured. */
  prepare(count: number): GeneratedRequest[] {
    return Array.from({ length: count }, () => this.#next())
  }

  /** Sends requests that were prepared, `atOnce` at a time. */
  async sendPrepared(requests: readonly GeneratedRequest[], atOnce: number): Promise<LedgerEntry[]> {
    const entries: LedgerEntry[] = []
    let next = 0
    const lane = async (): Promise<void> => {
      for (let request = requests[next++]; request !== undefined; request = requests[next++]) {
        entries.push(await this.sendOne(request, next))
      }
    }
    await Promise.all(Array.from({ length: atOnce }, lane))
    return entries
  }

  /** Sends one request and resolves with its entry. */
  async sendOne(
    request: GeneratedRequest,
    turn: number,
    how: { chunked?: boolean; hangUp?: boolean } = {},
  ): Promise<LedgerEntry> {
    const { ingresses, ledger } = this.#options
    const ingress = ingresses[turn % ingresses.length]
    if (ingress === undefined) throw new Error('there is no ingress to send to')
    return ledger.record(request, await this.#client.send(ingress.url, request, how))
  }

  close(): void {
    this.#client.close()
  }

  #next(): GeneratedRequest {
    return generateRequest(this.#options.generator, this.#index++)
  }

  /** Sends the next request and resolves with its entry. */
  sendNext(): Promise<LedgerEntry> {
    const index = this.#index
    return this.#sendAs(this.#next(), index)
  }

  /** One in ten comes without a length, one in a hundred from a client that goes away before its answer. */
  #sendAs(request: GeneratedRequest, index: number): Promise<LedgerEntry> {
    const { hangUps } = this.#options
    return this.sendOne(request, index, {
      chunked: index % 10 === 3,
      hangUp: hangUps && index % 100 === 57,
    })
  }
}
