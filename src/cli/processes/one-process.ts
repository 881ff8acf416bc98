import cluster, { type Worker } from 'node:cluster'
import { coerceError } from '../../foundation/failure.ts'
import { type Counts, totalsOf } from '../../telemetry/merge-metrics.ts'
import type { Doors } from '../start-ingress.ts'
import { type Begin, type Order, PROCESS_NUMBER, type Report } from './messages.ts'

/** How a process ended: with a code, by a signal, or because it could not begin. */
export interface ProcessEnd {
  readonly code?: number | null
  readonly signal?: NodeJS.Signals | null
  readonly error?: Error | undefined
}

/** One of several processes that take OTLP, seen from the supervisor. */
export class OneProcess {
  readonly number: number
  readonly pid: number | undefined
  /** Where it takes OTLP, when it does. */
  readonly serving: Promise<Doors>
  /** Resolves when it is gone and all is heard that it said. */
  readonly ended: Promise<ProcessEnd>
  readonly #worker: Worker | undefined
  readonly #onServing: (doors: Doors) => void
  readonly #onEnded: (end: ProcessEnd) => void
  readonly #past: Counts
  #counts: Counts = []
  #isServing = false
  #hasEnded = false
  #onCounted: (() => void)[] = []

  /**
   * Begins a process with the command line of this one.
   *
   * @param past the totals of those that had its number before.
   */
  constructor(number: number, begin: Begin, past: Counts) {
    this.number = number
    this.#past = past
    const serving = Promise.withResolvers<Doors>()
    const ended = Promise.withResolvers<ProcessEnd>()
    this.serving = serving.promise
    this.ended = ended.promise
    this.#onServing = serving.resolve
    this.#onEnded = ended.resolve
    try {
      this.#worker = cluster.fork({ [PROCESS_NUMBER]: String(number) })
    } catch (thrown) {
      this.#end({ error: coerceError(thrown) })
      return
    }
    const { process } = this.#worker
    this.pid = process.pid
    this.#worker.on('message', (report: Report) => this.#take(report))
    process.once('close', (code, signal) => this.#end({ code, signal }))
    this.#worker.on('error', (error) => {
      // Of a process that has begun, its end says enough.
      if (this.pid === undefined) this.#end({ error })
    })
    this.order({ kind: 'begin', begin })
  }

  /** True from when it takes OTLP until it has ended. */
  get isServing(): boolean {
    return this.#isServing
  }

  get hasEnded(): boolean {
    return this.#hasEnded
  }

  /** What was counted under its number, as far as it was heard of. */
  get counts(): readonly Counts[] {
    return [this.#past, this.#counts]
  }

  order(order: Order): void {
    // One that cannot be sent is for a process that is about to end.
    this.#worker?.send(order, () => undefined)
  }

  /** Resolves when it has said what it has counted, or has ended. */
  count(): Promise<void> {
    if (this.#hasEnded) return Promise.resolve()
    return new Promise((resolve) => {
      this.#onCounted.push(resolve)
      this.order({ kind: 'count' })
    })
  }

  /** kill -9. */
  kill(): void {
    this.#worker?.process.kill('SIGKILL')
  }

  #take(report: Report): void {
    switch (report.kind) {
      case 'serving':
        this.#isServing = true
        this.#onServing(report.doors)
        break
      case 'counted':
        this.#counts = report.counts
        this.#answerCounts()
    }
  }

  #end(end: ProcessEnd): void {
    this.#isServing = false
    this.#hasEnded = true
    this.#counts = totalsOf(this.#counts)
    this.#answerCounts()
    this.#onEnded(end)
  }

  #answerCounts(): void {
    for (const resolve of this.#onCounted.splice(0)) resolve()
  }
}
