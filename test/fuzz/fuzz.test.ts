import { describe, expect, test } from 'vitest'
import { FuzzBodies, families } from '../../stress/fuzz-bodies.ts'
import { listedRules } from '../../stress/fuzz-properties.ts'
import { joinTallies, measureAlone, runFuzz } from '../../stress/fuzz-run.ts'

const bodies = 10_000
const seed = 20_260_101
/** Twice what `make fuzz` allows: other tests use both cores at the same time, and the runner slows every loop. */
const holdMsMax = 100

describe('bodies that are wrong in every way', () => {
  test(`${bodies} of them break no property, nor disagree with protobufjs and Python`, async () => {
    const tally = await runFuzz({ seed, from: 0, bodies })
    expect(tally.violations).toEqual([])
    expect(tally.violated).toBe(0)
    expect(families.reduce((sum, family) => sum + tally.families[family].tried, 0)).toBe(bodies)
    // A fuzzer that is never let in, or never turned away, tests nothing.
    for (const family of families) {
      const { tried, accepted } = tally.families[family]
      expect(accepted / tried, family).toBeGreaterThan(0.1)
      expect(accepted / tried, family).toBeLessThan(0.9)
    }
    const slowest = await measureAlone(seed, tally.slowest)
    expect(slowest.filter(({ ms }) => ms > holdMsMax)).toEqual([])
    expect(Object.keys(tally.listed).filter((rule) => !(rule in listedRules))).toEqual([])
    const strings = families.reduce((sum, family) => sum + tally.families[family].repaired, 0)
    expect(strings).toBeGreaterThan(100)
  }, 300_000)

  test('are the same for the same seed and number, in whatever order they are made', () => {
    const [one, other] = [new FuzzBodies(7), new FuzzBodies(7)]
    const numbers = [0, 17, 1999, 4001, 9000]
    const forwards = numbers.map((number) => one.make(number))
    const backwards = numbers.toReversed().map((number) => other.make(number))
    expect(backwards.toReversed()).toEqual(forwards)
    expect(new FuzzBodies(8).make(17)).not.toEqual(forwards[1])
  })
})

test('the figures of several runs add up', async () => {
  const whole = await runFuzz({ seed, from: 100, bodies: 60 })
  const parts = [
    await runFuzz({ seed, from: 100, bodies: 25 }),
    await runFuzz({ seed, from: 125, bodies: 35 }),
  ]
  const { families: found, listed, violated } = joinTallies(parts)
  expect({ families: found, listed, violated }).toEqual({
    families: whole.families,
    listed: whole.listed,
    violated: whole.violated,
  })
})
