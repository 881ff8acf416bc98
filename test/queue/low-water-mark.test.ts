import { expect, test } from 'vitest'
import { LowWaterMark } from '../../src/queue/low-water-mark.ts'
import { manualClock } from '../support/clock.ts'

/** Where a look begins that takes so long. */
async function fromOf(
  mark: LowWaterMark,
  clock: ReturnType<typeof manualClock>,
  tookMs = 0,
): Promise<bigint> {
  return await mark.look(async (from) => {
    await clock.advance(tookMs)
    return from
  })
}

test('a second after a batch was claimed, what lies before it is not read again', async () => {
  const clock = manualClock()
  const mark = new LowWaterMark(clock)
  expect(await fromOf(mark, clock)).toBe(0n)
  mark.passed(1n)
  await clock.advance(500)
  mark.passed(201n)
  expect(await fromOf(mark, clock)).toBe(0n)
  await clock.advance(499)
  mark.passed(401n)
  expect(await fromOf(mark, clock)).toBe(0n)
  await clock.advance(1)
  // Due: a look at all.
  expect(await fromOf(mark, clock)).toBe(0n)
  mark.passed(601n)
  expect(await fromOf(mark, clock)).toBe(1n)
  await clock.advance(500)
  mark.passed(801n)
  expect(await fromOf(mark, clock)).toBe(201n)
  expect(mark.from).toBe(201n)
})

test('all is looked at once a second, and seldom enough that it takes 1 % of the time', async () => {
  const clock = manualClock()
  const mark = new LowWaterMark(clock)
  await fromOf(mark, clock)
  mark.passed(5n)
  await clock.advance(1_000)
  mark.passed(9n)
  expect(await fromOf(mark, clock, 100)).toBe(0n)
  await clock.advance(9_999)
  expect(await fromOf(mark, clock)).toBe(5n)
  await clock.advance(1)
  expect(await fromOf(mark, clock)).toBe(0n)
})

test('what was given back below the mark comes next, and what lies behind it too', async () => {
  const clock = manualClock()
  const mark = new LowWaterMark(clock)
  await fromOf(mark, clock)
  mark.passed(1_000n)
  await clock.advance(1_000)
  mark.passed(2_000n)
  expect(await fromOf(mark, clock)).toBe(0n)
  mark.passed(10n)
  expect(await fromOf(mark, clock)).toBe(10n)
  await clock.advance(999)
  mark.passed(210n)
  expect(await fromOf(mark, clock)).toBe(10n)
  await clock.advance(10)
  mark.passed(410n)
  expect(await fromOf(mark, clock)).toBe(0n)
  expect(await fromOf(mark, clock)).toBe(10n)
})

test('a look at all that fails, because it takes too long, is not tried again at once', async () => {
  const clock = manualClock()
  const mark = new LowWaterMark(clock, 0.001)
  const late = mark.look(async () => {
    await clock.advance(5_000)
    throw new Error('canceling statement due to statement timeout')
  })
  await expect(late).rejects.toThrow('statement timeout')
  mark.passed(7n)
  await clock.advance(1_000)
  mark.passed(8n)
  expect(await fromOf(mark, clock)).toBe(7n)
  await clock.advance(4_998_999)
  expect(await fromOf(mark, clock)).toBe(7n)
  await clock.advance(1)
  expect(await fromOf(mark, clock)).toBe(0n)
})
