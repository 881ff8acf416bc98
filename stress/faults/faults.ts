import type { Fault } from './fault.ts'
import { killedFaults } from './killed.ts'

/** Every line of the table, in its order. */
export const faults: readonly Fault[] = [...killedFaults]
