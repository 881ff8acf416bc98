import { Command, Option } from 'commander'
import { type Signal, signals } from '../otlp/signal.ts'
import { parseCount, parseTime } from './arguments.ts'
import { catHelp } from './cat.ts'
import { addDeadLetters, type DeadLetterActions } from './dead-letters/program.ts'
import { type ExitCode, exitCodes, exitCodesHelp } from './exit-codes.ts'
import { objectsHelp } from './objects.ts'
import { queueHelp } from './queue.ts'
import { traceHelp } from './trace.ts'
import { type SweepOptions, sweepHelp } from './verify/sweep-command.ts'
import { verifyHelp } from './verify/verify-command.ts'

export type Role = 'all' | 'ingress' | 'worker'

/** What each command does; each answers its exit code. */
export interface Actions {
  serve(options: { role: Role; guide: boolean }): Promise<ExitCode>
  migrate(options: { json: boolean }): Promise<ExitCode>
  queue(options: { json: boolean }): Promise<ExitCode>
  objects(options: ObjectsOptions): Promise<ExitCode>
  cat(key: string, options: { json: boolean }): Promise<ExitCode>
  trace(traceId: string, options: { json: boolean }): Promise<ExitCode>
  deadLetters: DeadLetterActions
  verify(options: { since?: Date; fast: boolean; json: boolean }): Promise<ExitCode>
  sweep(options: SweepOptions): Promise<ExitCode>
}

export interface ObjectsOptions {
  signal?: Signal
  tenant?: string
  since?: Date
  limit: number
  json: boolean
}

/**
 * Reads the command line and runs the command that it names.
 *
 * @returns the exit code. Wrong usage is explained on standard error and answers `exitCodes.usage`.
 */
export async function runProgram(
  argv: readonly string[],
  version: string,
  actions: Actions,
): Promise<ExitCode> {
  let exitCode: ExitCode = exitCodes.ok
  const program = new Command('sluice')
    .description('The durable front door for OpenTelemetry data.')
    .version(version, '-V, --version', 'print the version')
    .helpCommand(false)
    .showHelpAfterError('(sluice --help, or --help after a command, says more)')
    .exitOverride()
    .addHelpText(
      'after',
      `
Settings are environment variables; docs/configuration.md lists them. Without any, everything is kept in ./data.

Examples:
  sluice serve
  DATABASE_URL=postgres://… S3_ENDPOINT=http://… sluice serve --role worker
  sluice queue
  sluice dead-letters list
${exitCodesHelp}`,
    )
  const command = (name: string, about: string, help: string) =>
    program.command(name).description(about).exitOverride().addHelpText('after', `${help}\n${exitCodesHelp}`)
  const json = new Option('--json', 'print JSON').default(false)

  command('serve', 'Take OTLP, stage it, and move it into the store, until SIGTERM or Ctrl-C.', serveHelp)
    .addOption(
      new Option('--role <role>', 'all, or one half of it')
        .choices(['all', 'ingress', 'worker'])
        .default('all'),
    )
    .option('--guide', 'say in plain text on standard error where to send and where to look', false)
    .action(async (options: { role: Role; guide: boolean }) => {
      exitCode = await actions.serve(options)
    })
  command('migrate', 'Bring the database to the schema of this version.', migrateHelp)
    .addOption(json)
    .action(async (options: { json: boolean }) => {
      exitCode = await actions.migrate(options)
    })
  command('queue', 'Show what waits, by status.', queueHelp)
    .addOption(json)
    .action(async (options: { json: boolean }) => {
      exitCode = await actions.queue(options)
    })
  command('objects', 'List what is stored, the newest first.', objectsHelp)
    .addOption(new Option('--signal <signal>', 'only this signal').choices(Object.keys(signals)))
    .option('--tenant <tenant>', 'only this tenant')
    .option('--since <time>', 'only what was stored since, as 2026-01-31T12:00:00Z', parseTime)
    .option('--limit <count>', 'at most so many', parseCount, 100)
    .addOption(json)
    .action(async (options: ObjectsOptions) => {
      exitCode = await actions.objects(options)
    })
  command('cat', 'Print an object as OTLP JSON, one request a line.', catHelp)
    .argument('<key>', 'the key, as sluice objects shows it')
    .addOption(json)
    .action(async (key: string, options: { json: boolean }) => {
      exitCode = await actions.cat(key, options)
    })
  command('trace', 'Print one trace as OTLP JSON.', traceHelp)
    .argument('<id>', '32 hex digits')
    .addOption(new Option('--json', 'print JSON, as it does anyway').default(false))
    .action(async (id: string, options: { json: boolean }) => {
      exitCode = await actions.trace(id, options)
    })
  command('verify', 'Compare the catalog with the store, in both directions.', verifyHelp)
    .option('--since <time>', 'only what was stored since, as 2026-01-31T12:00:00Z', parseTime)
    .option('--fast', 'read no object: compare sizes and the checksums that the store keeps', false)
    .addOption(json)
    .action(async (options: { since?: Date; fast: boolean; json: boolean }) => {
      exitCode = await actions.verify(options)
    })
  command('sweep', 'Delete what batches left over, or objects that nobody knows.', sweepHelp)
    .option('--unknown', 'look for objects that this database does not know', false)
    .option('--yes', 'delete them', false)
    .addOption(json)
    .action(async (options: SweepOptions) => {
      exitCode = await actions.sweep(options)
    })
  addDeadLetters(program, actions.deadLetters, (code) => {
    exitCode = code
  })

  try {
    await program.parseAsync([...argv])
    return exitCode
  } catch (thrown) {
    // With exitOverride, help, the version and wrong usage arrive here after they have been printed.
    if (!isCommanderError(thrown)) throw thrown
    return thrown.exitCode === 0 ? exitCodes.ok : exitCodes.usage
  }
}

const serveHelp = `
Any number of processes may share one database and one bucket; PROCESSES=auto takes OTLP in as many as there are cores.
Without DATABASE_URL a private PostgreSQL runs under DATA_DIR; without S3_ENDPOINT objects go to DATA_DIR/objects.

SIGTERM and Ctrl-C drain: what is in hand is answered and stored within SHUTDOWN_GRACE_SECONDS, then it exits with 0,
or with 1 if something had to be left to its lease. A second signal ends it at once. SIGHUP reads the files of
TLS_CERT_FILE, TLS_KEY_FILE and TLS_CLIENT_CA_FILE again; without them it drains too.

Examples:
  sluice serve --guide
  TLS_CERT_FILE=tls.crt TLS_KEY_FILE=tls.key sluice serve
  PROCESSES=4 sluice serve
  sluice serve --role ingress`

const migrateHelp = `
Migrations are applied in order, each in a transaction, under a lock: any number of processes may try. serve does the
same at its start.

Examples:
  DATABASE_URL=postgres://… sluice migrate`

function isCommanderError(thrown: unknown): thrown is { exitCode: number } {
  return thrown instanceof Error && 'code' in thrown && String(thrown.code).startsWith('commander.')
}
