import {
  type Load,
  LoadShedding,
  type LoadSheddingOptions,
  type OverloadReason,
} from '../../src/ingress/load-shedding.ts'
import { type ManualClock, manualClock } from '../support/clock.ts'

/** What production has unless it is told otherwise. */
export const thresholds: Load = { cpu: 0.8, memory: 0.85, backlog: 1, answer_time: 5 }
/** A process that has nothing to do. */
export const idle: Load = { cpu: 0, memory: 0, backlog: 0, answer_time: 0 }

/** Load shedding whose readings and time a test makes. It keeps looking when the clock is moved. */
export interface Shedding {
  readonly shedding: LoadShedding
  readonly clock: ManualClock
  /** What it finds from its next look on. */
  load: Load
  /** What it told, in order. */
  readonly told: string[]
}

/** Started on an idle process. */
export async function startShedding(options: Partial<LoadSheddingOptions> = {}): Promise<Shedding> {
  const clock = manualClock()
  const told: string[] = []
  const made: Shedding = {
    clock,
    told,
    load: idle,
    shedding: new LoadShedding({
      read: async () => made.load,
      thresholds,
      onBegan: (reason) => void told.push(`began: ${reason}`),
      onEnded: (reason, lastedMs) => void told.push(`ended: ${reason} after ${lastedMs} ms`),
      clock,
      random: () => 0,
      ...options,
    }),
  }
  await made.shedding.start()
  return made
}

/** Load shedding in the middle of an overload, which does not end. */
export async function overloadedBy(reason: OverloadReason, random: () => number): Promise<LoadShedding> {
  const load = { ...idle, [reason]: thresholds[reason] }
  const { shedding } = await startShedding({ read: async () => load, random })
  return shedding
}
