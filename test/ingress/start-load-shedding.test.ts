import { expect, test } from 'vitest'
import { startLoadShedding } from '../../src/cli/start-load-shedding.ts'
import { readConfig } from '../../src/config.ts'
import { LifeCycle } from '../../src/foundation/life-cycle.ts'
import { AnswerTimes } from '../../src/ingress/answer-times.ts'
import { RECOVERY_MS } from '../../src/ingress/load-shedding.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { manualClock } from '../support/clock.ts'
import { collectingLog } from './serve.ts'

// What the machine of the test has in use must not count, nor the haste of a clock that is moved by hand.
const environment = {
  LOAD_SHEDDING_CPU_PERCENT: '100',
  LOAD_SHEDDING_MEMORY_PERCENT: '100',
  MAX_BODY_BYTES: '1MiB',
  STAGING_MAX_BYTES: '100MiB',
}

/** Load shedding as the program starts it, on a queue of ours. */
async function start(backlog: { rows: number; bytes: number }, answersMs: readonly number[] = []) {
  const clock = manualClock()
  const life = new LifeCycle(clock)
  const { config } = readConfig(environment)
  const metrics = createMetrics()
  const { log, lines } = collectingLog()
  const answerTimes = new AnswerTimes(clock)
  for (const tookMs of answersMs) answerTimes.record(tookMs)
  const overflow = { backlog }
  const parts = { log, metrics, clock, random: () => 0 }
  const shedding = await startLoadShedding(life, config, parts, { overflow, answerTimes })
  return { shedding, overflow, metrics, lines, clock, stop: () => life.stop(new AbortController().signal) }
}

test('a full queue is an overload, by its rows as by its bytes, and one that is nearly full is not', async () => {
  const MiB = 1024 ** 2
  const reasons = []
  for (const backlog of [
    { rows: 999, bytes: 0 },
    { rows: 1_000, bytes: 0 },
    { rows: 1, bytes: 98 * MiB },
    { rows: 1, bytes: 99 * MiB },
  ]) {
    const started = await start(backlog)
    reasons.push(started.shedding.refuses({})?.reason)
    await started.stop()
  }
  expect(reasons).toEqual([undefined, 'backlog', undefined, 'backlog'])
})

test('answers of five seconds are an overload, and faster ones are not', async () => {
  const slow = await start({ rows: 0, bytes: 0 }, Array(20).fill(5_000))
  const fast = await start({ rows: 0, bytes: 0 }, Array(20).fill(4_999))
  expect([slow.shedding.refuses({})?.reason, fast.shedding.refuses({})]).toEqual(['answer_time', undefined])
  await slow.stop()
  await fast.stop()
})

test('the log says when shedding begins, with the readings, and when it ends; the metrics have both', async () => {
  const { overflow, metrics, lines, clock, stop } = await start({ rows: 2_000, bytes: 0 })
  const gauge = async (name: 'sheddingIntensity' | 'load', reason?: string) =>
    (await metrics[name].get()).values.find(({ labels }) => (labels as { reason?: string }).reason === reason)
      ?.value
  expect([await gauge('sheddingIntensity'), await gauge('load', 'backlog')]).toEqual([1, 2])
  overflow.backlog.rows = 500
  await clock.advance(RECOVERY_MS)
  expect([await gauge('sheddingIntensity'), await gauge('load', 'backlog')]).toEqual([0, 0.5])
  await stop()
  expect(lines()).toEqual([
    expect.objectContaining({
      level: 'warn',
      event: 'load_shedding_began',
      reason: 'backlog',
      cpu: expect.any(Number),
      memory: expect.any(Number),
      backlog: 2,
      answer_time: 0,
    }),
    expect.objectContaining({
      level: 'info',
      event: 'load_shedding_ended',
      reason: 'backlog',
      lasted_seconds: 30,
    }),
  ])
})
