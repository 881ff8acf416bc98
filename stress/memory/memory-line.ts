import { account, describeAccount, isExact } from '../account.ts'
import { Ledger } from '../ledger.ts'
import type { Machine, Stage } from '../machine.ts'
import { peakResidentBytes } from '../processes.ts'
import { retryAfters } from '../scenarios/scenario.ts'
import type { SluiceProcess } from '../sluice-process.ts'
import { queueEmpty } from '../waiting.ts'

/** What a process may have beside the bytes that its settings name: 256 MB. */
export const BASE_BYTES = 256e6
const progressMs = 5_000
const inflightBytes = 128 * 1024 ** 2
const bufferBytes = 64 * 1024 ** 2
/** For the default settings, as the README states it. */
export const limitBytes = BASE_BYTES + inflightBytes + bufferBytes

/** What a scenario plays with. */
export interface MemoryContext {
  readonly machine: Machine
  readonly long: boolean
  readonly seed: number
  readonly say: (line: string) => void
}

/** One line of the table. */
export interface MemoryLine {
  readonly scenario: string
  readonly requests: number
  readonly taken: number
  /** By status, or `no answer`. */
  readonly refused: Readonly<Record<string, number>>
  readonly ingressPeakBytes: number | undefined
  readonly workerPeakBytes: number | undefined
  readonly limitBytes: number
  readonly seconds: number
  readonly ok: boolean
  /** What is untrue, in sentences. */
  readonly faults: readonly string[]
}

export interface MemoryScenario {
  readonly name: string
  readonly about: string
  play(context: MemoryContext): Promise<MemoryLine>
}

/** One scenario as it is played: its stage, its ledger, and what it was promised. */
export class MemoryPlay {
  readonly stage: Stage
  readonly ledger = new Ledger()
  readonly #name: string
  readonly #sinceMs = performance.now()
  readonly #ingresses: SluiceProcess[] = []
  readonly #workers: SluiceProcess[] = []
  readonly #faults: string[] = []
  readonly #limitBytes: number

  readonly #progress: NodeJS.Timeout

  private constructor(name: string, stage: Stage, say: (line: string) => void, extraBytes: number) {
    this.#limitBytes = limitBytes + extraBytes
    this.#name = name
    this.stage = stage
    this.#progress = setInterval(() => {
      const peaks = stage.processes.map(({ pid }) => megabytes(peakResidentBytes(pid) ?? 0)).join(' ')
      say(
        `    ${this.ledger.entries.size} requests, ${this.ledger.count('stored')} taken; peaks in MB: ${peaks}`,
      )
    }, progressMs)
  }

  /** @param extraBytes by how much a batch is larger than the buffer of the worker that has to take it over whole. */
  static async begin({ machine, say }: MemoryContext, name: string, extraBytes = 0): Promise<MemoryPlay> {
    return new MemoryPlay(name, await machine.stage(`memory-${name.replaceAll(' ', '-')}`), say, extraBytes)
  }

  async ingress(settings: Readonly<Record<string, string>> = {}) {
    const started = await this.stage.ingress(settings)
    this.#ingresses.push(started.process)
    return started
  }

  async worker(settings: Readonly<Record<string, string>> = {}): Promise<SluiceProcess> {
    const started = await this.stage.worker(settings)
    this.#workers.push(started)
    return started
  }

  /** Something that has to be true, or this sentence stands in the table. */
  require(holds: boolean, otherwise: string): void {
    if (!holds) this.#faults.push(otherwise)
  }

  /**
   * Waits until everything is stored, looks at the peaks, ends the processes and holds the whole store against the ledger.
   *
   * @param statuses which answers a sender may get, beside 200.
   */
  async end(statuses: readonly string[], drainWithinMs: number): Promise<MemoryLine> {
    const { stage, ledger } = this
    this.require(
      await queueEmpty(stage, drainWithinMs),
      `the queue was not empty in ${drainWithinMs / 1000} s`,
    )
    const ingressPeakBytes = this.#peak('ingress', this.#ingresses)
    const workerPeakBytes = this.#peak('worker', this.#workers)
    for (const code of await stage.terminate()) this.require(false, `exit code of ${code}`)
    const refused = this.#refusals(statuses)
    const result = await account(stage, ledger, { decodeEvery: 0 })
    this.require(isExact(result), describeAccount(result))
    const line = {
      scenario: this.#name,
      requests: ledger.entries.size,
      taken: ledger.count('stored'),
      refused,
      ingressPeakBytes,
      workerPeakBytes,
      limitBytes: this.#limitBytes,
      seconds: (performance.now() - this.#sinceMs) / 1000,
      ok: this.#faults.length === 0,
      faults: this.#faults,
    }
    clearInterval(this.#progress)
    await stage.dispose()
    return line
  }

  #peak(role: string, processes: readonly SluiceProcess[]): number | undefined {
    const living = processes.filter((one) => !one.wasKilled)
    for (const { name, exit } of living) this.require(exit === undefined, `${name} ended with ${exit}`)
    const peaks = living.map(({ pid }) => peakResidentBytes(pid)).filter((bytes) => bytes !== undefined)
    const peak = peaks.length === 0 ? undefined : Math.max(...peaks)
    this.require(
      peak === undefined || peak <= this.#limitBytes,
      `${role} had ${megabytes(peak ?? 0)} MB resident, ${megabytes(this.#limitBytes)} are promised`,
    )
    return peak
  }

  #refusals(statuses: readonly string[]): Record<string, number> {
    const refused: Record<string, number> = {}
    for (const { answer, promised } of this.ledger.entries.values()) {
      if (promised === 'stored') continue
      const status = answer.kind === 'answered' ? String(answer.status) : `no answer (${answer.why})`
      refused[status] = (refused[status] ?? 0) + 1
    }
    for (const status of Object.keys(refused)) {
      this.require(statuses.includes(status), `answered ${status}: ${refused[status]} times`)
    }
    const again = [...this.ledger.withStatus(429), ...this.ledger.withStatus(503)]
    const { seen, ok } = retryAfters(again)
    this.require(ok, `answers that shall be retried say ${seen}`)
    return refused
  }
}

export function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(0)
}
