import type { Clock } from '../foundation/clock.ts'
import { Periodic } from '../foundation/periodic.ts'
import type { Service } from '../foundation/service.ts'
import type { Outcome } from './outcome.ts'

/** What can be overloaded, in the order in which it is named when several are. */
export const overloadReasons = ['cpu', 'memory', 'backlog', 'answer_time'] as const
/** One of them, as log and metrics name it. */
export type OverloadReason = (typeof overloadReasons)[number]

/** A number for each of them: CPU, memory and backlog as shares of what there is, the answer time in seconds. */
export type Load = Readonly<Record<OverloadReason, number>>

/** How much it matters to a sender that a request is taken: what it said in `X-Priority`. */
export type Priority = 'low' | 'normal' | 'high'

/** A request that is not to be taken, and why. */
export interface Shed {
  readonly reason: OverloadReason
  readonly priority: Priority
}

/** The share of the requests of each priority that is refused under overload. */
const refusedShares: Readonly<Record<Priority, number>> = { low: 0.8, normal: 0.3, high: 0.1 }

/** How often is looked. */
export const LOOK_INTERVAL_MS = 500
/**
 * How long it takes from the last reading over its threshold until everything is taken again. Shedding brings the
 * readings down while the senders still send too much: if it ended with them, it would begin again at once.
 */
export const RECOVERY_MS = 30_000

export interface LoadSheddingOptions {
  /** How things are. Never rejects. */
  read: () => Promise<Load>
  /** From these numbers on it is an overload. */
  thresholds: Load
  /** Told after each look. */
  onLooked?: (load: Load) => void
  /** Told when the first reading is at its threshold, before anything is refused for it. */
  onBegan?: (reason: OverloadReason, load: Load) => void
  /** Told when everything is taken again. */
  onEnded?: (reason: OverloadReason, lastedMs: number) => void
  clock: Clock
  random: () => number
}

/**
 * Refuses a share of the requests by their priority while the process has more to do than it can. The shares hold from
 * the first reading at its threshold until no reading is; then they fall in a straight line to nothing. So what senders
 * send comes back a little at a time, and if it is too much still, the shares are full again long before shedding ends.
 *
 * **Maintained invariant**: shedding that began goes on for at least `RECOVERY_MS`.
 */
export class LoadShedding implements Service {
  readonly name = 'load shedding'
  readonly #options: LoadSheddingOptions
  readonly #looks: Periodic
  #intensity = 0
  #reason: OverloadReason = 'cpu'
  #beganMs = 0
  #overloadedMs = 0

  constructor(options: LoadSheddingOptions) {
    this.#options = options
    this.#looks = new Periodic({
      clock: options.clock,
      pauseMs: () => LOOK_INTERVAL_MS,
      work: () => this.#look(),
    })
  }

  /** Looks once, then keeps looking. */
  async start(): Promise<void> {
    await this.#look()
    this.#looks.start()
  }

  stop(): Promise<void> {
    return this.#looks.stop()
  }

  /** How much of the shares is refused, 0 for nothing to 1 for all of them. */
  get intensity(): number {
    return this.#intensity
  }

  /** Whether to refuse the request with these headers, names in lower case; drawn anew at each call. */
  refuses(headers: Readonly<Record<string, string | string[] | undefined>>): Shed | undefined {
    if (this.#intensity === 0) return undefined
    const priority = priorityOf(headers['x-priority'])
    if (this.#options.random() >= this.#intensity * refusedShares[priority]) return undefined
    return { reason: this.#reason, priority }
  }

  async #look(): Promise<void> {
    const { read, thresholds, onLooked, onBegan, onEnded, clock } = this.#options
    const load = await read()
    onLooked?.(load)
    const nowMs = clock.monotonicMs()
    const reason = overloadReasons.find((one) => load[one] >= thresholds[one])
    if (reason !== undefined) {
      if (this.#intensity === 0) {
        this.#beganMs = nowMs
        onBegan?.(reason, load)
      }
      this.#reason = reason
      this.#overloadedMs = nowMs
      this.#intensity = 1
    } else if (this.#intensity > 0) {
      this.#intensity = Math.max(0, 1 - (nowMs - this.#overloadedMs) / RECOVERY_MS)
      if (this.#intensity === 0) onEnded?.(this.#reason, nowMs - this.#beganMs)
    }
  }
}

/** What the sender of a request is told that is not taken. */
export function overloaded({ reason, priority }: Shed): Outcome {
  const message = `overloaded (${reason}): a share of the requests of ${priority} priority is refused`
  return { kind: 'overloaded', message }
}

/** Whatever is neither low nor high is normal: a word that we do not know must not cost a sender its data. */
function priorityOf(header: string | string[] | undefined): Priority {
  const word = typeof header === 'string' ? header.trim().toLowerCase() : undefined
  return word === 'low' || word === 'high' ? word : 'normal'
}
