import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { freeMemory } from '../../src/foundation/memory.ts'

const bytes = 64 * 1024 ** 2

test('the memory of a large buffer is given back at once, without the garbage collector', () => {
  const large = Buffer.allocUnsafeSlow(bytes).fill(1)
  const before = process.memoryUsage().arrayBuffers
  freeMemory(large)
  expect(before - process.memoryUsage().arrayBuffers).toBeGreaterThanOrEqual(bytes)
  expect(large.length).toBe(0)
})

test('a buffer that may lie in memory of others stays as it is', () => {
  const [one, other] = [Buffer.from('one'), Buffer.from('other')]
  const part = Buffer.allocUnsafeSlow(64 * 1024 + 1).subarray(1)
  freeMemory(one)
  freeMemory(part)
  expect([String(one), String(other), part.length]).toEqual(['one', 'other', 64 * 1024])
})

test('the space of young objects stays below 64 MiB, where V8 would let it grow to 128', () => {
  const churn = (limit: string) => `
    import v8 from 'node:v8'
    import { setImmediate as pause } from 'node:timers/promises'
    ${limit}
    const kept = []
    let most = 0
    for (let turn = 0; turn < 300; turn++) {
      kept.push(Array.from({ length: 40_000 }, (_, place) => ({ place })))
      if (kept.length > 8) kept.shift()
      const young = v8.getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space')
      most = Math.max(most, young.space_size)
      await pause()
    }
    console.log(most / 1024 ** 2)`
  const megabytes = (limit: string) =>
    Number(execFileSync(process.execPath, ['--input-type=module', '--eval', churn(limit)]))
  const module = new URL('../../src/foundation/memory.ts', import.meta.url)
  expect(megabytes(`import { limitYoungSpace } from '${module}'; limitYoungSpace()`)).toBeLessThan(64)
  expect(megabytes('')).toBeGreaterThan(64)
})
