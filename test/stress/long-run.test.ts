import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { beginOrGoOn } from '../../stress/faults/long.ts'
import { WrongUsage } from '../../stress/faults/wrong-usage.ts'

let folder: string
let file: string

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'sluice-long-run-'))
  file = path.join(folder, 'state.json')
})
afterEach(() => rm(folder, { recursive: true }))

const round = (kills: number, ok = true) => ({
  name: 'kills',
  ok,
  seen: '',
  kills,
  seconds: 1,
  reconciliation: undefined,
})
const fresh = { seed: 2, killsWanted: 1000, rounds: [] }

test('a long run goes on where it was broken off, with its own seed', async () => {
  expect(await beginOrGoOn(file, fresh, false)).toBe(fresh)
  await writeFile(file, JSON.stringify({ seed: 7, killsWanted: 1000, rounds: [round(50)] }))
  expect(await beginOrGoOn(file, fresh, false)).toMatchObject({ seed: 7, rounds: [{ kills: 50 }] })
  expect(await beginOrGoOn(file, { ...fresh, seed: 7 }, true)).toMatchObject({
    seed: 7,
    rounds: [{ kills: 50 }],
  })
})

test('a long run is not replaced by one with another seed', async () => {
  await writeFile(file, JSON.stringify({ seed: 7, killsWanted: 1000, rounds: [round(50)] }))
  const begun = beginOrGoOn(file, fresh, true)
  await expect(begun).rejects.toThrow(WrongUsage)
  await expect(begun).rejects.toThrow(
    `SEED=2 would replace the run of seed 7 in ${file}, which has made 50 of 1000 kills: go on with SEED=7 or ` +
      `without SEED, or delete ${file}`,
  )
})

test('a long run that is over makes room for the next, and one that has made too few kills does not', async () => {
  await writeFile(file, JSON.stringify({ seed: 7, killsWanted: 1000, rounds: [round(950), round(50)] }))
  expect(await beginOrGoOn(file, fresh, true)).toBe(fresh)
  await writeFile(
    file,
    JSON.stringify({ seed: 7, killsWanted: 1000, rounds: [round(950), round(50, false)] }),
  )
  expect(await beginOrGoOn(file, fresh, false)).toMatchObject({ seed: 7, rounds: [{ kills: 950 }] })
})
