import { aborted } from './abort.ts'
import type { Clock } from './clock.ts'
import { Failure } from './failure.ts'
import type { Service } from './service.ts'

/** What all services together get, after `giveUp`, to leave things in order. */
const PATIENCE_MS = 4_000
/** What each gets even when that is used up. */
const PATIENCE_EACH_MS = 250

/**
 * Services in the order of their start, from the far end of the data to the door, so that each finds what it hands
 * things to. They stop in the opposite order: nothing new comes in while what is in hand moves on.
 */
export class LifeCycle {
  readonly #clock: Clock
  readonly #started: Service[] = []
  #stopped: Promise<void> | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Starts a service; it is stopped with the others from then on, whether its start succeeds or not. */
  async start(service: Service): Promise<void> {
    this.#started.push(service)
    await service.start()
  }

  /**
   * Stops everything, one after the other; a second call waits for the first. It ends some 5 s after
   * `giveUp` aborts, whatever hangs.
   *
   * @throws what a service threw, or a Failure that names those that did not stop.
   */
  stop(giveUp: AbortSignal): Promise<void> {
    this.#stopped ??= this.#stopAll(giveUp)
    return this.#stopped
  }

  async #stopAll(giveUp: AbortSignal): Promise<void> {
    const failures: unknown[] = []
    const gaveUp = aborted(giveUp).then(() => this.#clock.monotonicMs())
    for (const service of this.#started.reverse()) {
      const stopped = new AbortController()
      const hangs = gaveUp.then(async (sinceMs) => {
        const leftMs = Math.max(PATIENCE_EACH_MS, sinceMs + PATIENCE_MS - this.#clock.monotonicMs())
        await this.#clock.sleep(leftMs, stopped.signal)
        return 'hangs' as const
      })
      try {
        const ended = await Promise.race([service.stop(giveUp), hangs])
        if (ended === 'hangs')
          failures.push(new Failure('outage', `the ${service.name} did not stop in time`))
      } catch (thrown) {
        // The others still have to stop.
        failures.push(thrown)
      }
      stopped.abort()
    }
    if (failures.length === 1) throw failures[0]
    if (failures.length > 1) throw new AggregateError(failures, 'several parts could not stop')
  }
}
