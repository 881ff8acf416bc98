import type { Clock } from '../foundation/clock.ts'
import { Periodic } from '../foundation/periodic.ts'
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
  readonly #looks: Periodic

  constructor(options: PartitionKeeperOptions) {
    this.#options = options
    this.#looks = new Periodic({
      clock: options.clock,
      pauseMs: () => INTERVAL_MS,
      work: () => this.#ensure(),
    })
  }

  async start(): Promise<void> {
    await this.#ensure()
    this.#looks.start()
  }

  stop(): Promise<void> {
    return this.#looks.stop()
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
