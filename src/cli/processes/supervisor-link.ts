import type { Clock } from '../../foundation/clock.ts'
import type { Service } from '../../foundation/service.ts'
import type { Metrics } from '../../telemetry/metrics.ts'
import type { Doors } from '../start-ingress.ts'
import type { Begin, Order, Report } from './messages.ts'

const LAST_REPORT_MS_MAX = 500

export interface SupervisorLinkOptions {
  metrics: Metrics
  onReload: () => void
  onStop: () => void
  clock: Clock
}

/**
 * The way from one of several processes to its supervisor. When the supervisor is gone, `node:cluster` ends the process at once:
 * what it held is on disk, or its sender repeats it.
 */
export class SupervisorLink implements Service {
  readonly name = 'supervisor link'
  readonly #options: SupervisorLinkOptions
  /** What to begin with, which the supervisor says first. */
  readonly begun: Promise<Begin>

  constructor(options: SupervisorLinkOptions) {
    this.#options = options
    const { promise, resolve } = Promise.withResolvers<Begin>()
    this.begun = promise
    process.on('message', (order: Order) => {
      switch (order.kind) {
        case 'begin':
          return resolve(order.begin)
        case 'count':
          return void this.#count()
        case 'reload':
          return options.onReload()
        case 'stop':
          return options.onStop()
      }
    })
  }

  /** Says that OTLP is taken. */
  serving(doors: Doors): void {
    void report({ kind: 'serving', doors })
  }

  async start(): Promise<void> {
    // The way was there before this process was.
  }

  /** Says for the last time what this process has counted. */
  async stop(): Promise<void> {
    await Promise.race([this.#count(), this.#options.clock.sleep(LAST_REPORT_MS_MAX)])
  }

  async #count(): Promise<void> {
    await report({ kind: 'counted', counts: await this.#options.metrics.registry.getMetricsAsJSON() })
  }
}

/** Resolves when it is sent, or cannot be: then the supervisor is gone, and so is this process. */
function report(message: Report): Promise<void> {
  return new Promise((resolve) => process.send?.(message, undefined, undefined, () => resolve()))
}
