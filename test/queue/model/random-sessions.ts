import fc from 'fast-check'
import { ending, number } from './random-steps.ts'
import {
  type SessionStep,
  sessionAppend,
  sessionClaim,
  sessionCrash,
  sessionCut,
  sessionEnd,
  sessionRenew,
  sessionReplay,
  sessionTakeOver,
  sessionTimePasses,
} from './sessions.ts'

export const sessionNames = ['session A', 'session B', 'session C', 'session D']

const rowsMax = fc.integer({ min: 1, max: 6 })
/** Mostly the last batch that was given; else one from long ago. */
const hand = fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: number })

const step: fc.Arbitrary<SessionStep> = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 6 }).map(sessionAppend) },
  { weight: 5, arbitrary: rowsMax.map(sessionClaim) },
  { weight: 6, arbitrary: rowsMax.map(sessionTakeOver) },
  { weight: 9, arbitrary: fc.tuple(ending, hand).map((choice) => sessionEnd(...choice)) },
  { weight: 1, arbitrary: fc.constant(sessionRenew()) },
  { weight: 1, arbitrary: fc.constant(sessionCrash()) },
  { weight: 4, arbitrary: fc.constant(sessionTimePasses()) },
  { weight: 1, arbitrary: rowsMax.map(sessionReplay) },
  { weight: 1, arbitrary: fc.constantFrom(...sessionNames, 'stager').map(sessionCut) },
)

/** What each session does, one step after another, while the others do the same. */
export const programs = fc.tuple(
  ...sessionNames.map(() => fc.array(step, { minLength: 0, maxLength: 40, size: 'max' })),
)
