import { expect, test } from 'vitest'
import { DiskGuard, FREE_BYTES_MIN } from '../../src/postgres/disk-guard.ts'
import { manualClock } from '../support/clock.ts'

test('a disk is nearly full below 1 GiB, a second after it became so, and as long as it is', async () => {
  const clock = manualClock()
  let free = FREE_BYTES_MIN
  const guard = new DiskGuard(async () => free, clock)
  await guard.start()
  expect(guard.isNearlyFull).toBe(false)
  free = FREE_BYTES_MIN - 1
  await clock.advance(1_000)
  expect(guard.isNearlyFull).toBe(true)
  free = FREE_BYTES_MIN
  await clock.advance(1_000)
  expect(guard.isNearlyFull).toBe(false)
  await guard.stop()
  expect(clock.sleepers).toBe(0)
})

test('a look at the disk that fails is told of, changes no figure, and the next one counts again', async () => {
  const clock = manualClock()
  const failed: unknown[] = []
  const broken = new Error('EIO')
  let look = async () => 0
  const guard = new DiskGuard(
    () => look(),
    clock,
    (error) => failed.push(error),
  )
  await guard.start()
  look = async () => {
    throw broken
  }
  await clock.advance(2_000)
  expect(failed).toEqual([broken, broken])
  expect(guard.isNearlyFull).toBe(true)
  look = async () => FREE_BYTES_MIN
  await clock.advance(1_000)
  expect(guard.isNearlyFull).toBe(false)
  await guard.stop()
})
