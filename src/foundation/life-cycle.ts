import type { Service } from './service.ts'

/**
 * Services in the order of their start, from the far end of the data to the door, so that each finds what it hands
 * things to. They stop in the opposite order: nothing new comes in while what is in hand moves on.
 */
export class LifeCycle {
  readonly #started: Service[] = []
  #stopped: Promise<void> | undefined

  async start(service: Service): Promise<void> {
    this.#started.push(service)
    await service.start()
  }

  /** Stops everything, one after the other; a second call waits for the first. `giveUp` ends the patience of all. */
  stop(giveUp: AbortSignal): Promise<void> {
    this.#stopped ??= this.#stopAll(giveUp)
    return this.#stopped
  }

  async #stopAll(giveUp: AbortSignal): Promise<void> {
    const failures: unknown[] = []
    for (const service of this.#started.reverse()) {
      try {
        await service.stop(giveUp)
      } catch (thrown) {
        // The others still have to stop.
        failures.push(thrown)
      }
    }
    if (failures.length === 1) throw failures[0]
    if (failures.length > 1) throw new AggregateError(failures, 'several parts could not stop')
  }
}
