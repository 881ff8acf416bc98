import fc from 'fast-check'
import type { Model } from './model.ts'
import { discard, replay, type Wish } from './people-steps.ts'
import {
  append,
  type ClaimBounds,
  claim,
  count,
  crash,
  renew,
  sweep,
  takeOver,
  timePasses,
} from './queue-steps.ts'
import { absolve, type Ending, end, put, type Who } from './settle-steps.ts'
import { Command, type Planner, type Stand } from './steps.ts'

export const number = fc.nat({ max: 99 })
const error = fc.constantFrom('first fault', 'second fault', 'store away')
const worker = fc.constantFrom('worker A', 'worker B', 'worker C')

const newRequest = fc.record({
  signal: fc.constantFrom('traces', 'logs', 'profiles'),
  tenant: fc.constantFrom('default', 'other'),
  encoding: fc.constantFrom('identity', 'gzip'),
  items: fc.integer({ min: 1, max: 3 }),
  padding: fc.constantFrom(0, 10, 80),
  unpackedBytes: fc.constantFrom(0, 0, 0, 100 * 1024 * 1024),
})

/** Mostly what lets all through. A request without padding has 9 bytes: some of these bounds are met exactly. */
const bounds: fc.Arbitrary<ClaimBounds> = fc.record({
  worker,
  rowsMax: fc.constantFrom(6, 6, 4, 3, 2, 1),
  bytesMax: fc.constantFrom(1_000_000, 1_000_000, 1_000_000, 28, 18, 9, 5),
  firstAnySize: fc.boolean(),
  isProbe: fc.constantFrom(false, false, false, false, false, false, true),
})

export const ending: fc.Arbitrary<Ending> = fc.oneof(
  { weight: 2, arbitrary: fc.constant({ how: 'complete' as const }) },
  {
    weight: 4,
    arbitrary: fc.record({
      how: fc.constant('fail' as const),
      options: fc.record({
        countAttempt: fc.boolean(),
        countOutage: fc.boolean(),
        delayMs: fc.constantFrom(0, 3_600_000),
        error,
      }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ how: fc.constant('split' as const), error }) },
  { weight: 2, arbitrary: fc.constant({ how: 'release' as const }) },
  {
    weight: 2,
    arbitrary: fc.record({
      how: fc.constant('bury' as const),
      options: fc.record({
        reason: fc.constantFrom('data_refused', 'worker_lost'),
        countAttempt: fc.boolean(),
        error,
      }),
    }),
  },
)

const who: fc.Arbitrary<Who> = fc.constantFrom('holder', 'holder', 'holder', 'late')

const wish: fc.Arbitrary<Wish> = fc.record({
  filter: fc.constantFrom<Wish['filter'][]>(
    {},
    {},
    { reason: 'worker_lost' },
    { tenant: 'other' },
    { signal: 'traces' },
  ),
  isOne: fc.boolean(),
  number,
  rowsMax: fc.integer({ min: 1, max: 6 }),
  bytesMax: fc.constantFrom(1_000_000, 9, 28),
})

/** The lines with larger weights come more often. */
const planner: fc.Arbitrary<Planner> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .tuple(fc.array(newRequest, { minLength: 1, maxLength: 5 }), fc.nat({ max: 9 }))
      .map(([requests, chance]) => append(requests, chance === 9)),
  },
  { weight: 9, arbitrary: bounds.map(claim) },
  { weight: 14, arbitrary: bounds.map(takeOver) },
  { weight: 16, arbitrary: fc.tuple(ending, who, number).map((choice) => end(...choice)) },
  {
    weight: 2,
    arbitrary: fc.tuple(who, number, fc.integer({ min: 1, max: 3 })).map((choice) => put(...choice)),
  },
  { weight: 2, arbitrary: worker.map(renew) },
  { weight: 1, arbitrary: worker.map(crash) },
  {
    weight: 14,
    arbitrary: fc
      .tuple(fc.constantFrom('processing', 'failed'), number)
      .map((choice) => timePasses(...choice)),
  },
  { weight: 3, arbitrary: wish.map(replay) },
  { weight: 1, arbitrary: wish.map(discard) },
  { weight: 1, arbitrary: number.map(absolve) },
  { weight: 1, arbitrary: fc.constant(sweep()) },
  { weight: 1, arbitrary: fc.constant(count()) },
)

/** Steps in any order. */
export const commands = fc.commands<Model, Stand, false>([planner.map((one) => new Command(one))], {
  maxCommands: 60,
  size: 'max',
})
