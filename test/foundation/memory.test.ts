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
