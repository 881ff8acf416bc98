import type { Clock } from './clock.ts'

export interface PeriodicOptions {
  clock: Clock
  /** Milliseconds between the end of one round and the start of the next; asked before each pause. */
  pauseMs: () => number
  /** One round. It handles what can go wrong with it; what it throws all the same is a bug and reaches `stop`. */
  work: (stopping: AbortSignal) => Promise<void>
}

/** Housekeeping: rounds of work with pauses between them, the first after a pause, until it is stopped. */
export class Periodic {
  readonly #options: PeriodicOptions
  readonly #stopping = new AbortController()
  #rounds: Promise<void> | undefined

  constructor(options: PeriodicOptions) {
    this.#options = options
  }

  start(): void {
    this.#rounds = this.#run()
  }

  /** Cuts a pause short and waits for the round that is under way. May be called without a start, and twice. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#rounds
  }

  async #run(): Promise<void> {
    const { clock, pauseMs, work } = this.#options
    const { signal } = this.#stopping
    for (;;) {
      await clock.sleep(pauseMs(), signal)
      if (signal.aborted) return
      await work(signal)
    }
  }
}
