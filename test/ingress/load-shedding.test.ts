import fc from 'fast-check'
import { expect, test } from 'vitest'
import { LOOK_INTERVAL_MS, overloadReasons, RECOVERY_MS } from '../../src/ingress/load-shedding.ts'
import { seededRandom } from '../../stress/seeded-random.ts'
import { idle, overloadedBy, startShedding, thresholds } from './overload.ts'

const priorities = ['low', 'normal', 'high']
const refusedOf = (shedding: Awaited<ReturnType<typeof overloadedBy>>, priority: string, count: number) =>
  Array.from({ length: count }, () => shedding.refuses({ 'x-priority': priority })).filter(Boolean).length

test('nothing is refused just below every threshold, whatever chance says', async () => {
  const below = Object.fromEntries(overloadReasons.map((reason) => [reason, thresholds[reason] * 0.999]))
  const { shedding } = await startShedding({ read: async () => below as typeof idle, random: () => 0 })
  expect(priorities.map((priority) => shedding.refuses({ 'x-priority': priority }))).toEqual([
    undefined,
    undefined,
    undefined,
  ])
})

test.for(overloadReasons)(
  '%s at its threshold refuses 0.8 of low, 0.3 of normal and 0.1 of high priority',
  async (reason) => {
    const shedding = await overloadedBy(reason, seededRandom(7).fraction)
    const drawn = 10_000
    for (const [priority, share] of [
      ['low', 0.8],
      ['normal', 0.3],
      ['high', 0.1],
    ] as const) {
      const sigma = Math.sqrt(drawn * share * (1 - share))
      expect(Math.abs(refusedOf(shedding, priority, drawn) - drawn * share)).toBeLessThan(4 * sigma)
    }
  },
)

test('a priority that is absent, unknown or said twice is normal; case and blanks do not matter', async () => {
  const shedding = await overloadedBy('cpu', () => 0)
  const words = [undefined, '', 'urgent', 'low, high', ['low', 'high'], 'LOW', ' high ', 'normal']
  const taken = words.map((word) => shedding.refuses({ 'x-priority': word })?.priority)
  expect(taken).toEqual(['normal', 'normal', 'normal', 'normal', 'normal', 'low', 'high', 'normal'])
})

test('the reason is the one that was over its threshold last, the first in order of several', async () => {
  const made = await startShedding()
  const reasons: unknown[] = []
  for (const load of [{ ...idle, backlog: 1, memory: 0.9 }, { ...idle, answer_time: 6 }, idle]) {
    made.load = load
    await made.clock.advance(LOOK_INTERVAL_MS)
    reasons.push(made.shedding.refuses({})?.reason)
  }
  expect(reasons).toEqual(['memory', 'answer_time', 'answer_time'])
})

test('after an overload the shares fall in a straight line, and are full again at the next one', async () => {
  const made = await startShedding()
  made.load = { ...idle, cpu: 0.8 }
  await made.clock.advance(LOOK_INTERVAL_MS)
  made.load = { ...idle, cpu: 0.799 }
  const seen: number[] = []
  for (let third = 0; third < 2; third++) {
    seen.push(made.shedding.intensity)
    await made.clock.advance(RECOVERY_MS / 3)
  }
  seen.push(made.shedding.intensity)
  made.load = { ...idle, cpu: 0.8 }
  await made.clock.advance(LOOK_INTERVAL_MS)
  seen.push(made.shedding.intensity)
  made.load = idle
  await made.clock.advance(RECOVERY_MS)
  expect([...seen, made.shedding.intensity].map((intensity) => intensity.toFixed(3))).toEqual([
    '1.000',
    '0.667',
    '0.333',
    '1.000',
    '0.000',
  ])
  expect(made.told).toEqual([
    'began: cpu',
    `ended: cpu after ${(2 * RECOVERY_MS) / 3 + RECOVERY_MS + 500} ms`,
  ])
})

test('whatever is read, shedding that began lasts at least 30 s, and never rises without an overload', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          cpu: fc.double({ min: 0, max: 1, noNaN: true }),
          looks: fc.integer({ min: 1, max: 90 }),
        }),
        {
          maxLength: 12,
        },
      ),
      async (stretches) => {
        const made = await startShedding()
        let [beganMs, overloadedMs, before] = [Number.NaN, Number.NaN, 0]
        for (const { cpu, looks } of stretches) {
          made.load = { ...idle, cpu }
          for (let look = 0; look < looks; look++) {
            await made.clock.advance(LOOK_INTERVAL_MS)
            const nowMs = made.clock.monotonicMs()
            const { intensity } = made.shedding
            if (cpu >= thresholds.cpu) overloadedMs = nowMs
            else expect(intensity).toBeLessThanOrEqual(before)
            if (before === 0 && intensity > 0) beganMs = nowMs
            if (before > 0 && intensity === 0) {
              expect(nowMs - beganMs).toBeGreaterThanOrEqual(RECOVERY_MS)
              expect(nowMs - overloadedMs).toBeGreaterThanOrEqual(RECOVERY_MS)
            }
            before = intensity
          }
        }
      },
    ),
    { numRuns: 60 },
  )
})

test.for([
  ['one and a quarter times what is borne, with normal priority', 1, 0.3],
  ['twice what is borne, with low priority', 1.6, 0.8],
  ['five times what is borne', 4, 0.3],
] as const)(
  'senders that ask for %s are shed without a break, which ends once when they stop',
  async ([, demand, share]) => {
    const random = seededRandom(11)
    let [asked, smoothed, intensity]: [number, number, () => number] = [demand, 0, () => 0]
    // The CPU as it is: what is taken, with some noise, smoothed over three seconds.
    const { shedding, clock, told } = await startShedding({
      read: async () => {
        const noise = 0.95 + 0.1 * random.fraction()
        const taken = Math.min(1, asked * (1 - share * intensity()) * noise)
        smoothed += (1 - Math.exp(-LOOK_INTERVAL_MS / 3_000)) * (taken - smoothed)
        return { ...idle, cpu: smoothed }
      },
    })
    intensity = () => shedding.intensity
    await clock.advance(600_000)
    expect(told).toEqual(['began: cpu'])
    asked = 0.5
    await clock.advance(120_000)
    expect(told).toEqual(['began: cpu', expect.stringMatching(/^ended: cpu after \d+ ms$/)])
  },
)
