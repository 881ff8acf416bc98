import { brokenConnectionFaults } from './broken-connections.ts'
import { clockFaults } from './clocks.ts'
import { databaseStateFaults } from './database-states.ts'
import type { Fault } from './fault.ts'
import { fullDiskFaults } from './full-disks.ts'
import { killFaults, rollingRestart } from './kills.ts'
import { leaseFaults } from './leases.ts'
import { lostAnswerFaults } from './lost-answers.ts'
import { midnightFaults } from './midnight.ts'
import { outageFaults } from './outages.ts'
import { storeStateFaults } from './store-states.ts'

/** Every line of the table, in its order. */
export const faults: readonly Fault[] = [
  ...killFaults,
  rollingRestart,
  ...leaseFaults,
  ...clockFaults,
  ...midnightFaults,
  ...outageFaults,
  ...lostAnswerFaults,
  ...brokenConnectionFaults,
  ...databaseStateFaults,
  ...storeStateFaults,
  ...fullDiskFaults,
]
