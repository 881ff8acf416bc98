import { expect, test } from 'vitest'
import { AnswerTimes } from '../../src/ingress/answer-times.ts'
import { manualClock } from '../support/clock.ts'

test('half of the answers took at least as long as it says', () => {
  const times = new AnswerTimes(manualClock())
  for (let tookMs = 1_000; tookMs <= 11_000; tookMs += 1_000) times.record(tookMs)
  expect(times.medianSeconds).toBe(6)
})

test('a few requests that take long have no say among many that do not, nor alone', () => {
  const times = new AnswerTimes(manualClock())
  for (let answer = 0; answer < 9; answer++) times.record(9_000)
  const alone = times.medianSeconds
  for (let answer = 0; answer < 10; answer++) times.record(2)
  expect([alone, times.medianSeconds]).toEqual([0, 0.002])
})

test('what is older than 10 s is forgotten, and of more than 256 answers the oldest', async () => {
  const clock = manualClock()
  const times = new AnswerTimes(clock)
  for (let answer = 0; answer < 200; answer++) times.record(9_000)
  for (let answer = 0; answer < 200; answer++) times.record(1_000)
  const crowded = times.medianSeconds
  await clock.advance(10_001)
  expect([crowded, times.medianSeconds]).toEqual([1, 0])
})
