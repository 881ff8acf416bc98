import { discard, replay, type Wish } from './people-steps.ts'
import { append, claim, crash, renew, takeOver, timePasses } from './queue-steps.ts'
import { absolve, type Ending, end } from './settle-steps.ts'
import type { Planner } from './steps.ts'

const worker = 'worker A'
const bounds = { worker, rowsMax: 2, bytesMax: 1_000_000, firstAnySize: true, isProbe: false }
const request = {
  signal: 'traces',
  tenant: 'default',
  encoding: 'identity',
  items: 1,
  padding: 0,
  unpackedBytes: 0,
} as const

const failure = { countAttempt: false, countOutage: true, error: 'store away' }
const endings: readonly Ending[] = [
  { how: 'complete' },
  { how: 'release' },
  { how: 'split', error: 'a fault' },
  { how: 'bury', options: { reason: 'data_refused', countAttempt: true, error: 'a fault' } },
  { how: 'fail', options: { ...failure, delayMs: 3_600_000 } },
  { how: 'fail', options: { ...failure, delayMs: 0 } },
]

const held = [append([request, request], false), claim(bounds)]
const expired = [...held, timePasses('processing', 0)]
const everyLetter: Wish = { filter: {}, isOne: false, number: 0, rowsMax: 1, bytesMax: 1_000_000 }

/** A walk over every arrow of both diagrams, with what a drain takes after it. */
export const everyArrow: readonly Planner[] = [
  ...endings.flatMap((ending) => [...held, end(ending, 'holder', 0), ...expired, end(ending, 'holder', 0)]),
  ...expired,
  renew(worker),
  timePasses('processing', 0),
  timePasses('failed', 0),
  timePasses('failed', 0),
  ...Array.from({ length: 7 }, () => takeOver(bounds)),
  replay(everyLetter),
  discard(everyLetter),
]

const other = 'worker B'
/** How a worker may lose the right to a batch that it remembers. */
const losses: readonly (readonly Planner[])[] = [
  [timePasses('processing', 0), takeOver({ ...bounds, worker: other }), crash(other)],
  ...endings.map((ending) => [end(ending, 'holder', 0)]),
]

/** Every end of a batch, said by a worker that has lost it in every way. */
export const everyLateAct: readonly Planner[] = losses.flatMap((loss) => [
  ...held,
  ...loss,
  ...endings.map((ending) => end(ending, 'late', 0)),
  renew(worker),
  absolve(0),
  crash(worker),
])

const fails = (error: string, countAttempt: boolean): Planner =>
  end({ how: 'fail', options: { countAttempt, countOutage: !countAttempt, delayMs: 0, error } }, 'holder', 0)

/** A batch that meets one thing after another, and what is written of each. */
export const longHistory: readonly Planner[] = [
  ...held,
  fails('the first', true),
  takeOver(bounds),
  timePasses('processing', 0),
  takeOver(bounds),
  fails('the second', false),
  takeOver(bounds),
  fails('the third', true),
  takeOver(bounds),
  end({ how: 'split', error: 'the fourth' }, 'holder', 0),
  takeOver(bounds),
  fails('the fifth', true),
  takeOver(bounds),
  end(
    { how: 'bury', options: { reason: 'worker_lost', countAttempt: false, error: 'the sixth' } },
    'holder',
    0,
  ),
  replay(everyLetter),
  claim(bounds),
]
