import { clockFaults } from './clocks.ts'
import type { Fault } from './fault.ts'
import { killFaults, rollingRestart } from './kills.ts'
import { leaseFaults } from './leases.ts'
import { midnight } from './midnight.ts'

/** Every line of the table, in its order. */
export const faults: readonly Fault[] = [
  ...killFaults,
  rollingRestart,
  ...leaseFaults,
  ...clockFaults,
  midnight,
]
