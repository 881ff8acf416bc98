import { expect, test } from 'vitest'
import { systemClock } from '../../src/foundation/clock.ts'
import type { Backlog } from '../../src/queue/count-backlog.ts'
import { Overflow, type OverflowOptions } from '../../src/queue/overflow.ts'

/** An overflow whose clock ticks when told to: `recount` lets one count happen. */
async function overflowOn(waiting: Backlog, changes: Partial<OverflowOptions> = {}) {
  let tick: () => void = () => undefined
  let counted: () => void = () => undefined
  const overflow = new Overflow({
    policy: 'reject',
    sampleRate: 0.1,
    rowsMax: 10,
    bytesMax: 1000,
    count: async () => ({ ...waiting, costMs: 0 }),
    onCounted: () => counted(),
    clock: {
      ...systemClock,
      sleep: (_ms, signal) =>
        new Promise((resolve) => {
          if (signal?.aborted) resolve()
          tick = resolve
          signal?.addEventListener('abort', () => resolve())
        }),
    },
    random: () => 0.5,
    ...changes,
  })
  await overflow.start()
  const recount = () =>
    new Promise<void>((resolve) => {
      counted = resolve
      tick()
    })
  return { overflow, recount }
}

const outcomes = (overflow: Overflow, requests: number, bytes = 10) =>
  Array.from({ length: requests }, () => overflow.decide(bytes).outcome)

const countOf = (list: string[], outcome: string) => list.filter((one) => one === outcome).length

test('exactly as many rows are admitted as there is room for', async () => {
  const { overflow } = await overflowOn({ rows: 4, bytes: 0 })
  expect(outcomes(overflow, 8)).toEqual([...Array(6).fill('stage'), 'reject', 'reject'])
  await overflow.stop()
})

test('bytes that wait are a limit too', async () => {
  const { overflow } = await overflowOn({ rows: 0, bytes: 900 })
  expect(overflow.decide(101).outcome).toBe('reject')
  expect(overflow.decide(100).outcome).toBe('stage')
  expect(overflow.decide(1).outcome).toBe('reject')
  await overflow.stop()
})

test('a row that was not committed gives its place back', async () => {
  const { overflow } = await overflowOn({ rows: 9, bytes: 0 })
  expect(outcomes(overflow, 2)).toEqual(['stage', 'reject'])
  overflow.settled(10, false)
  expect(outcomes(overflow, 2)).toEqual(['stage', 'reject'])
  await overflow.stop()
})

test('a count takes what was committed since out of the estimate, and keeps what is on its way', async () => {
  const waiting = { rows: 0, bytes: 0 }
  const { overflow, recount } = await overflowOn(waiting)
  expect(countOf(outcomes(overflow, 10), 'stage')).toBe(10)
  for (let i = 0; i < 7; i++) overflow.settled(10, true)
  waiting.rows = 2
  await recount()
  // Two wait in the database, three are on their way to their commit.
  expect(overflow.backlog.rows).toBe(5)
  expect(countOf(outcomes(overflow, 10), 'stage')).toBe(5)
  await overflow.stop()
})

test('a count that fails leaves the last one standing', async () => {
  let fails = false
  const { overflow } = await overflowOn(
    { rows: 0, bytes: 0 },
    {
      count: async () => {
        if (fails) throw new Error('away')
        return { rows: 10, bytes: 0, costMs: 0 }
      },
    },
  )
  fails = true
  expect(overflow.decide(1).outcome).toBe('reject')
  await overflow.stop()
})

test('drop drops what does not fit', async () => {
  const { overflow } = await overflowOn({ rows: 10, bytes: 0 }, { policy: 'drop' })
  expect(overflow.decide(1)).toEqual({ outcome: 'drop', policy: 'drop' })
  await overflow.stop()
})

test('sample keeps its share beyond the limit and nothing beyond twice the limit', async () => {
  let next = 0
  const { overflow } = await overflowOn(
    { rows: 10, bytes: 0 },
    { policy: 'sample', sampleRate: 0.25, random: () => (next++ % 4) / 4 },
  )
  const seen = outcomes(overflow, 100)
  expect(seen.slice(0, 8)).toEqual(['stage', 'drop', 'drop', 'drop', 'stage', 'drop', 'drop', 'drop'])
  expect(countOf(seen, 'stage')).toBe(10)
  await overflow.stop()
})
