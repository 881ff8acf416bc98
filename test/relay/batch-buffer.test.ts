import { expect, test } from 'vitest'
import type { Batch } from '../../src/queue/batch.ts'
import { BatchBuffer } from '../../src/relay/batch-buffer.ts'
import type { HeldBatch } from '../../src/relay/held-batch.ts'

function held(rows: number, bytes: number): HeldBatch {
  const batch = { batchId: `${rows}-${bytes}`, rows: Array(rows), bytes } as unknown as Batch
  return { batch, lost: new AbortController(), trustedUntilMs: 0 }
}

test('rows and bytes count from the claim to the settle, not only while they wait', async () => {
  const buffer = new BatchBuffer({ rowsMax: 50, bytesMax: 1000 })
  const one = held(25, 10)
  buffer.add(one)
  buffer.add(held(25, 10))
  expect(await buffer.take()).toBe(one)
  expect(buffer.hasRoomFor(25)).toBe(false)
  buffer.done(one)
  expect(buffer.hasRoomFor(25)).toBe(true)
  expect([buffer.rows, buffer.bytes, buffer.freeRows, buffer.freeBytes]).toEqual([25, 10, 25, 990])
})

test('an empty buffer takes any batch, so that a large one never waits for ever', () => {
  const buffer = new BatchBuffer({ rowsMax: 10, bytesMax: 10 })
  expect(buffer.hasRoomFor(1000)).toBe(true)
  buffer.add(held(1, 5000))
  expect(buffer.hasRoomFor(1)).toBe(false)
  expect(buffer.freeBytes).toBe(0)
})

test('whoever waits for a batch gets the next one, and nobody gets one after the close', async () => {
  const buffer = new BatchBuffer({ rowsMax: 100, bytesMax: 1000 })
  const taken = [buffer.take(), buffer.take(), buffer.take()]
  const one = held(1, 1)
  buffer.add(one)
  expect(await taken[0]).toBe(one)
  expect(buffer.close()).toEqual([])
  expect(await Promise.all([taken[1], taken[2], buffer.take()])).toEqual([undefined, undefined, undefined])
})

test('the close answers what nobody has begun to write', async () => {
  const buffer = new BatchBuffer({ rowsMax: 100, bytesMax: 1000 })
  const [one, two] = [held(1, 1), held(2, 2)]
  buffer.add(one)
  buffer.add(two)
  await buffer.take()
  expect(buffer.close()).toEqual([two])
  expect(buffer.rows).toBe(3)
})

test('a batch that leaves twice is a bug', () => {
  const buffer = new BatchBuffer({ rowsMax: 100, bytesMax: 1000 })
  const one = held(1, 1)
  buffer.add(one)
  buffer.done(one)
  expect(() => buffer.done(one)).toThrow('left the buffer twice')
})

test('freed room wakes whoever waits for it, and so does the abort', async () => {
  const buffer = new BatchBuffer({ rowsMax: 1, bytesMax: 10 })
  const one = held(1, 1)
  buffer.add(one)
  const waiting = buffer.roomFreed(new AbortController().signal)
  buffer.done(one)
  await waiting
  const stopping = new AbortController()
  const stopped = buffer.roomFreed(stopping.signal)
  stopping.abort()
  await stopped
})
