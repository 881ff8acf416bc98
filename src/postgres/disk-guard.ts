import type { Clock } from '../foundation/clock.ts'
import { Periodic } from '../foundation/periodic.ts'
import type { Service } from '../foundation/service.ts'

const INTERVAL_MS = 1_000
/** With less free disk than this, in bytes, nothing is taken any more: 1 GiB. */
export const FREE_BYTES_MIN = 1024 ** 3

/**
 * Watches the disk under the embedded server. A full disk stops PostgreSQL, and with it the draining that would make
 * room again, so nothing is taken any more while less than 1 GiB is free.
 */
export class DiskGuard implements Service {
  readonly name = 'disk guard'
  readonly #freeDiskBytes: () => Promise<number>
  readonly #watch: Periodic
  #freeBytes = Number.POSITIVE_INFINITY

  /** `onFailed` is told of each look at the disk, once a second, that failed; the last figure stays until one succeeds. */
  constructor(
    freeDiskBytes: () => Promise<number>,
    clock: Clock,
    onFailed: (error: unknown) => void = () => undefined,
  ) {
    this.#freeDiskBytes = freeDiskBytes
    this.#watch = new Periodic({
      clock,
      pauseMs: () => INTERVAL_MS,
      work: async () => {
        try {
          this.#freeBytes = await freeDiskBytes()
        } catch (error) {
          onFailed(error)
        }
      },
    })
  }

  /** @throws what `freeDiskBytes` threw, when already the first look failed. */
  async start(): Promise<void> {
    this.#freeBytes = await this.#freeDiskBytes()
    this.#watch.start()
  }

  stop(): Promise<void> {
    return this.#watch.stop()
  }

  get isNearlyFull(): boolean {
    return this.#freeBytes < FREE_BYTES_MIN
  }
}
