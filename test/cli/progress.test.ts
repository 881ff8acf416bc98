import { expect, test } from 'vitest'
import { Progress, progressBar } from '../../src/cli/progress.ts'
import { manualClock } from '../support/clock.ts'

async function said(isTTY: boolean): Promise<string[]> {
  const clock = manualClock()
  const texts: string[] = []
  const progress = new Progress(clock, { isTTY, write: (text) => texts.push(text) })
  for (let second = 0; second <= 8; second++) {
    progress.say(`${second} s`)
    await clock.advance(1000)
  }
  progress.end()
  return texts
}

test('nothing is said for two seconds; then a line in a file every five, without control characters', async () => {
  expect(await said(false)).toEqual(['2 s\n', '7 s\n'])
})

test('a terminal gets one line that is written over, and is left clean', async () => {
  const texts = await said(true)
  expect(texts.slice(0, 2)).toEqual(['\r\x1b[K2 s', '\r\x1b[K3 s'])
  expect(texts.at(-1)).toBe('\r\x1b[K')
})

test('a bar is as long as its share, never longer, and full when there is nothing to do', () => {
  expect(progressBar(0, 3)).toBe('[--------------------]   0 %')
  expect(progressBar(2, 3)).toBe('[#############-------]  66 %')
  expect(progressBar(4, 3)).toBe('[####################] 100 %')
  expect(progressBar(0, 0)).toBe('[####################] 100 %')
})
