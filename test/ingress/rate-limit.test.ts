import { expect, test } from 'vitest'
import { RateLimit } from '../../src/ingress/rate-limit.ts'
import { manualClock } from '../support/clock.ts'

test('a full bucket admits its burst at once and then says when the next token comes', () => {
  const limit = new RateLimit({ perSecond: 0.5, burst: 3, clock: manualClock() })
  expect([limit.take(), limit.take(), limit.take(), limit.take()]).toEqual([
    { ok: true },
    { ok: true },
    { ok: true },
    { ok: false, retryAfterSeconds: 2 },
  ])
})

test('the wait is whole seconds and never 0, however near the next token is', async () => {
  const clock = manualClock()
  const limit = new RateLimit({ perSecond: 100, burst: 1, clock })
  limit.take()
  await clock.advance(9)
  expect(limit.take()).toEqual({ ok: false, retryAfterSeconds: 1 })
  await clock.advance(1)
  expect(limit.take()).toEqual({ ok: true })
})

test('a client that waits as long as it was told is admitted', async () => {
  const clock = manualClock()
  const limit = new RateLimit({ perSecond: 0.3, burst: 1, clock })
  limit.take()
  await clock.advance(100)
  const refused = limit.take()
  expect(refused).toEqual({ ok: false, retryAfterSeconds: 4 })
  await clock.advance(4000)
  expect(limit.take()).toEqual({ ok: true })
})

test('ten seconds of twice the rate admit the rate and the burst, exactly', async () => {
  const clock = manualClock()
  const limit = new RateLimit({ perSecond: 100, burst: 20, clock })
  let admitted = 0
  for (let request = 0; request < 2000; request++) {
    if (limit.take().ok) admitted++
    await clock.advance(5)
  }
  expect(admitted).toBe(20 + 1000 - 1)
})

test('an idle hour saves up no more than the burst', async () => {
  const clock = manualClock()
  const limit = new RateLimit({ perSecond: 10, burst: 5, clock })
  await clock.advance(3_600_000)
  const answers = Array.from({ length: 7 }, () => limit.take().ok)
  expect(answers).toEqual([true, true, true, true, true, false, false])
})
