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

test('a short buffer, whose memory may be that of others, stays as it is', () => {
  const [one, other] = [Buffer.from('one'), Buffer.from('other')]
  freeMemory(one)
  expect([String(one), String(other)]).toEqual(['one', 'other'])
})

test('no buffer of the pool is long enough to be given back', () => {
  const pooled = Buffer.allocUnsafe(Buffer.poolSize / 2 - 1).fill(1)
  freeMemory(pooled)
  expect(pooled.length).toBe(Buffer.poolSize / 2 - 1)
})
