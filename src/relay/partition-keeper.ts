import type { Clock } from '../foundation/clock.ts'
import type { Service } from '../foundation/service.ts'
import type { Log } from '../telemetry/log.ts'

export interface PartitionKeeperOptions {
  ensurePartitions: () => Promise<void>
  clock: Clock
  log: Log
}

const INTERVAL_MS = 60 * 60 * 1000

/** Keeps the partitions of `trace_index` seven days ahead: made at start and looked at every hour. */
export class PartitionKeeper implements Service {
  readonly name = 'partition keeper'
  readonly #options: PartitionKeeperOptions
  readonly #stopping = new AbortController()
  #loop: Promise<void> | undefined

  constructor(options: PartitionKeeperOptions) {
    this.#options = options
  }

  async start(): Promise<void> {
    await this.#ensure()
    this.#loop = this.#keepLooking()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#loop
  }

  async #keepLooking(): Promise<void> {
    for (;;) {
      await this.#options.clock.sleep(INTERVAL_MS, this.#stopping.signal)
      if (this.#stopping.signal.aborted) return
      await this.#ensure()
    }
  }

  /** A day that is missing all the same is made by the settle that needs it. */
  async #ensure(): Promise<void> {
    try {
      await this.#options.ensurePartitions()
    } catch (error) {
      this.#options.log.warn('partition_failed', { error })
    }
  }
}
