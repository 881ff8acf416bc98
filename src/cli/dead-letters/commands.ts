import type { Config } from '../../config.ts'
import type { Clock } from '../../foundation/clock.ts'
import type { Sql } from '../../postgres/pool.ts'
import type { DeadLetterFilter } from '../../queue/dead-letters.ts'
import { type ExitCode, exitCodes } from '../exit-codes.ts'
import { Progress } from '../progress.ts'
import { exportCommand } from './export.ts'
import { listCommand } from './list.ts'
import { type Changed, discardCommand, type Moving, replayCommand } from './move.ts'
import type { DeadLetterActions } from './program.ts'
import { showCommand } from './show.ts'

/** What the commands share with the others: a database, and where to print. */
export interface DeadLetterCommandOptions {
  reading: (command: (reading: { sql: Sql; config: Config }) => Promise<ExitCode>) => Promise<ExitCode>
  print: (text: string) => Promise<ExitCode>
  complain: (sentence: string, exitCode: ExitCode) => ExitCode
  clock: Clock
}

/** `sluice dead-letters …` */
export function deadLetterCommands(options: DeadLetterCommandOptions): DeadLetterActions {
  const { reading, print, complain, clock } = options
  const moving = (sql: Sql): Moving => ({ sql, clock, progress: new Progress(clock, process.stderr) })
  const report = async ({ found, text }: Changed, { ids }: DeadLetterFilter) => {
    await print(text)
    return found === 0 && ids !== undefined ? exitCodes.notFound : exitCodes.ok
  }
  return {
    list: (filter, how) => reading(async ({ sql }) => await print(await listCommand(sql, filter, how))),
    show: (id, how) =>
      reading(async ({ sql }) => {
        const text = await showCommand(sql, id, how)
        if (text === undefined) return complain(`There is no dead letter ${id}.`, exitCodes.notFound)
        return await print(text)
      }),
    export: (filter, how) =>
      reading(async ({ sql }) => await report(await exportCommand(moving(sql), filter, how), filter)),
    replay: (filter, how) =>
      reading(async ({ sql, config }) => {
        const backlogMax = { rows: config.STAGING_MAX_BACKLOG, bytes: config.STAGING_MAX_BYTES }
        return await report(await replayCommand(moving(sql), filter, { ...how, backlogMax }), filter)
      }),
    discard: (filter, how) =>
      reading(async ({ sql }) => await report(await discardCommand(moving(sql), filter, how), filter)),
  }
}
