import { readFile, rename, writeFile } from 'node:fs/promises'
import type { Machine } from '../machine.ts'
import { manyKills } from './kills.ts'
import { type FaultResult, playFault } from './run.ts'
import { WrongUsage } from './wrong-usage.ts'

/** Kills of one scene; then it is reconciled, which takes longer the more there is. */
const killsPerRound = 50

/** How far a long run is, as it is written down after every round. */
export interface LongRun {
  readonly seed: number
  readonly killsWanted: number
  readonly rounds: readonly FaultResult[]
}

/**
 * The run that `file` tells of, unless it is over; else a new one.
 *
 * @throws WrongUsage with a sentence when that run is not over and has another seed than the one that was given.
 */
export async function beginOrGoOn(file: string, fresh: LongRun, isSeedGiven: boolean): Promise<LongRun> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return fresh
    throw error
  }
  const written = JSON.parse(text) as LongRun
  const begun = { ...written, rounds: written.rounds.filter(({ ok }) => ok) }
  if (killsOf(begun) >= begun.killsWanted) return fresh
  if (!isSeedGiven || begun.seed === fresh.seed) return begun
  throw new WrongUsage(
    `SEED=${fresh.seed} would replace the run of seed ${begun.seed} in ${file}, which has made ${killsOf(begun)} of ` +
      `${begun.killsWanted} kills: go on with SEED=${begun.seed} or without SEED, or delete ${file}`,
  )
}

export function killsOf({ rounds }: LongRun): number {
  return rounds.reduce((sum, { kills }) => sum + kills, 0)
}

/**
 * Rounds of kills until there are enough, the time is over, or a round is untrue. What was done is in `file` after every
 * round, so that a run that was broken off goes on there; a round that was untrue is not done, and is played again.
 */
export async function playLong(
  begun: LongRun,
  options: {
    machine: Machine
    file: string
    untilMs: number
    say(line: string): void
  },
): Promise<LongRun> {
  const { machine, file, untilMs, say } = options
  let run = begun
  while (killsOf(run) < run.killsWanted && performance.now() < untilMs) {
    const place = run.rounds.length
    const kills = Math.min(killsPerRound, run.killsWanted - killsOf(run))
    const progress = (line: string) => say(`  … ${line}`)
    const result = await playFault(manyKills, place, { machine, seed: run.seed, kills, progress })
    run = { ...run, rounds: [...run.rounds, result] }
    if (result.ok) {
      await writeFile(`${file}.new`, JSON.stringify(run))
      await rename(`${file}.new`, file)
    }
    say(
      `${result.ok ? 'ok' : 'FAILED'}  ${killsOf(run)} of ${run.killsWanted} kills (${result.seconds.toFixed(0)} s)`,
    )
    if (!result.ok) return run
  }
  return run
}
