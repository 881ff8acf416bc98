import { Argument, type Command, Option } from 'commander'
import { signals } from '../../otlp/signal.ts'
import { type DeadLetterFilter, deadLetterReasons } from '../../queue/dead-letters.ts'
import { parseCount, parseId, parseTime } from '../arguments.ts'
import { type ExitCode, exitCodesHelp } from '../exit-codes.ts'

/** What each command below `sluice dead-letters` does. */
export interface DeadLetterActions {
  list(
    filter: DeadLetterFilter,
    options: { limit: number; before?: bigint; json: boolean },
  ): Promise<ExitCode>
  show(id: bigint, options: { json: boolean }): Promise<ExitCode>
  export(filter: DeadLetterFilter, options: ChangeOptions & { to: string }): Promise<ExitCode>
  replay(filter: DeadLetterFilter, options: ChangeOptions): Promise<ExitCode>
  discard(filter: DeadLetterFilter, options: DiscardOptions): Promise<ExitCode>
}

export interface ChangeOptions {
  dryRun: boolean
  json: boolean
}

/** `all` must be said when nothing else says which. */
export interface DiscardOptions extends ChangeOptions {
  all: boolean
  yes: boolean
}

type Filter = Omit<DeadLetterFilter, 'ids'>

/** Adds `dead-letters` and the commands below it. `end` is told the exit code of the one that ran. */
export function addDeadLetters(
  program: Command,
  actions: DeadLetterActions,
  end: (exitCode: ExitCode) => void,
): void {
  const group = program
    .command('dead-letters')
    .description('Look at requests that could not be stored, try them again, or drop them.')
    .helpCommand(false)
    .addHelpText('after', `${groupHelp}\n${exitCodesHelp}`)
  const add = (name: string, about: string, help: string) =>
    group.command(name).description(about).addHelpText('after', `${help}\n${exitCodesHelp}`)
  const json = new Option('--json', 'print JSON').default(false)
  const dryRun = new Option('--dry-run', 'only say what it would do').default(false)

  filtered(add('list', 'List them, the request that came last first.', listHelp))
    .option('--limit <count>', 'at most so many', parseCount, 100)
    .option('--before <id>', 'only ids before this one: the next page', parseId)
    .addOption(json)
    .action(
      async ({
        limit,
        before,
        json,
        ...filter
      }: Filter & { limit: number; before?: bigint; json: boolean }) => {
        end(await actions.list(filter, { limit, ...(before === undefined ? {} : { before }), json }))
      },
    )
  add('show', 'Show one, with what is in it.', showHelp)
    .addArgument(new Argument('<id>', 'the id, as list shows it').argParser(parseId))
    .addOption(json)
    .action(async (id: bigint, options: { json: boolean }) => {
      end(await actions.show(id, options))
    })
  filtered(withIds(add('export', 'Write them into a folder. They stay where they are.', exportHelp)))
    .requiredOption('--to <folder>', 'where to write; made if it is not there')
    .addOption(dryRun)
    .addOption(json)
    .action(
      async (ids: bigint[], { to, dryRun, json, ...filter }: Filter & ChangeOptions & { to: string }) => {
        end(await actions.export(chosen(ids, filter), { to, dryRun, json }))
      },
    )
  filtered(withIds(add('replay', 'Put them back into the queue, as they were.', replayHelp)))
    .addOption(dryRun)
    .addOption(json)
    .action(async (ids: bigint[], { dryRun, json, ...filter }: Filter & ChangeOptions) => {
      end(await actions.replay(chosen(ids, filter), { dryRun, json }))
    })
  filtered(withIds(add('discard', 'Delete them for ever.', discardHelp)))
    .option('--all', 'every one of them, where nothing else says which', false)
    .option('--yes', 'do it', false)
    .addOption(dryRun)
    .addOption(json)
    .action(async (ids: bigint[], { all, yes, dryRun, json, ...filter }: Filter & DiscardOptions) => {
      end(await actions.discard(chosen(ids, filter), { all, yes, dryRun, json }))
    })
}

function filtered(command: Command): Command {
  return command
    .addOption(new Option('--reason <reason>', 'only those that died of this').choices(deadLetterReasons))
    .option('--tenant <tenant>', 'only this tenant')
    .addOption(new Option('--signal <signal>', 'only this signal').choices(Object.keys(signals)))
    .option('--since <time>', 'only what died at this time or later, as 2026-01-31T12:00:00Z', parseTime)
    .option('--until <time>', 'only what died before this time', parseTime)
}

function withIds(command: Command): Command {
  const collect = (text: string, before: bigint[]) => [...before, parseId(text)]
  return command.addArgument(new Argument('[ids...]', 'only these').argParser(collect).default([]))
}

function chosen(ids: readonly bigint[], filter: Filter): DeadLetterFilter {
  return ids.length === 0 ? filter : { ...filter, ids }
}

const groupHelp = `
A request is set aside when it fails for its own data MAX_ATTEMPTS times (data_refused), or when that many workers in a
row vanished with it alone (worker_lost). It keeps its id, which is also its id in the queue and in the catalog.

Examples:
  sluice dead-letters list
  sluice dead-letters show 17
  sluice dead-letters export --to ./dead
  sluice dead-letters replay --reason data_refused --dry-run
  sluice dead-letters discard 17 --yes`

const listHelp = `
The list ends at --limit; --before with the last id gives the next page.

Examples:
  sluice dead-letters list
  sluice dead-letters list --reason worker_lost --since 2026-01-31T00:00:00Z
  sluice dead-letters list --json | jq -r 'group_by(.lastError)[] | "\\(length) \\(.[0].lastError)"'`

const showHelp = `
Prints why and when it died, and the beginning of the request as OTLP JSON; with --json all of it.

Examples:
  sluice dead-letters show 17
  sluice dead-letters show 17 --json | jq '.request.resourceSpans[].resource'`

const exportHelp = `
Writes a file for each, with the OTLP request as it was staged: ID.SIGNAL.binpb, or ID.SIGNAL.binpb.gz where it is
gzip; and dead-letters.jsonl with a line of JSON for each. Run again, it goes on where it was cut short, and adds to
what is there.

Examples:
  sluice dead-letters export --to ./dead
  sluice dead-letters export 17 18 --to ./dead
  zcat dead/17.traces.binpb.gz | curl -H 'Content-Type: application/x-protobuf' --data-binary @- http://…:4318/v1/traces`

const replayHelp = `
They go back under the ids and with the times that they had; those that fail again come back here. Each is moved once,
even if this is killed and run again, or run twice at the same time. It moves at most 100 or 8 MiB at a time, and waits
while the queue is half full (STAGING_MAX_BACKLOG, STAGING_MAX_BYTES), so that those who send find room.

Examples:
  sluice dead-letters replay 17
  sluice dead-letters replay --tenant acme --until 2026-01-31T00:00:00Z --dry-run
  sluice dead-letters replay`

const discardHelp = `
Without --yes it says what it would delete, and deletes nothing. Without ids and filters it wants --all, so that an empty
list of ids does not mean everything.

Examples:
  sluice dead-letters export 17 --to ./dead && sluice dead-letters discard 17 --yes
  sluice dead-letters discard --reason data_refused --until 2026-01-01T00:00:00Z --yes`
