import { type Config, readConfig } from '../config.ts'
import type { Clock } from '../foundation/clock.ts'
import { asFailure, Failure } from '../foundation/failure.ts'
import { type Environment, SettingsError } from '../foundation/setting.ts'
import { findEmbedded } from '../postgres/embedded.ts'
import { type DatabaseLocation, parseDatabaseUrl } from '../postgres/location.ts'
import { migrate } from '../postgres/migrate.ts'
import { closePool, openPool, type Sql } from '../postgres/pool.ts'
import type { ObjectStore } from '../sink/object-store.ts'
import { createLogger } from '../telemetry/log.ts'
import { catCommand } from './cat.ts'
import { deadLetterCommands } from './dead-letters/commands.ts'
import { type ExitCode, exitCodes } from './exit-codes.ts'
import { objectsCommand } from './objects.ts'
import { openStore } from './open-store.ts'
import type { Actions } from './program.ts'
import { Progress } from './progress.ts'
import { queueCommand } from './queue.ts'
import { traceCommand } from './trace.ts'
import { sweepCommand } from './verify/sweep-command.ts'
import { Verification } from './verify/verify.ts'
import { verifyCommand } from './verify/verify-command.ts'

const CLOSE_MS_MAX = 1_000

interface Reading {
  sql: Sql
  store: ObjectStore
  config: Config
}

/** All commands but `serve`: they open, ask, print and close. */
export function lookingCommands(environment: Environment, clock: Clock): Omit<Actions, 'serve'> {
  const reading = (command: (reading: Reading) => Promise<ExitCode>) => read(environment, clock, command)
  return {
    migrate: ({ json }) =>
      reading(async ({ sql }) => {
        const { applied } = await migrate(sql)
        if (json) return await print(`${JSON.stringify({ applied })}\n`)
        const done = applied.length === 0 ? 'The schema is up to date.' : `Applied ${applied.join(', ')}.`
        return await print(`${done}\n`)
      }),
    queue: (options) => reading(async ({ sql }) => await print(await queueCommand(sql, options))),
    objects: ({ since, ...options }) =>
      reading(async ({ sql }) => {
        const filter = since === undefined ? options : { ...options, storedSince: since }
        return await print(await objectsCommand(sql, filter))
      }),
    cat: (key, { json }) =>
      reading(async ({ sql, store, config }) => {
        const pieces = await catCommand(sql, store, { key, keyPrefix: config.S3_PREFIX, json })
        if (pieces === undefined) return complain(`There is no object ${key}.`, exitCodes.notFound)
        for await (const piece of pieces) await print(piece)
        return exitCodes.ok
      }),
    trace: (traceId) =>
      reading(async ({ sql, store }) => {
        const found = await traceCommand(sql, store, traceId)
        if (found === undefined) return complain(`No span of trace ${traceId} is stored.`, exitCodes.notFound)
        return await print(found)
      }),
    deadLetters: deadLetterCommands({ reading, print, complain, clock }),
    verify: ({ since, fast, json }) =>
      reading(async ({ sql, store, config }) => {
        const what = { keyPrefix: config.S3_PREFIX, since, isFast: fast }
        const progress = new Progress(clock, process.stderr)
        const verification = new Verification(sql, store, { ...what, clock, progress })
        return await verifyCommand(verification, { json, print })
      }),
    sweep: (options) =>
      reading(async ({ sql, store, config }) => {
        const { S3_PREFIX: keyPrefix, LEASE_SECONDS: leaseSeconds } = config
        const log = createLogger({ level: 'warn', clock, destination: process.stderr })
        const progress = new Progress(clock, process.stderr)
        const sweeping = { sql, store, keyPrefix, leaseSeconds, clock, log, progress, print }
        try {
          return await sweepCommand(sweeping, options)
        } finally {
          await log.close()
        }
      }),
  }
}

/** The settings and the warnings about them; undefined when they are wrong, which has then been said. */
export function readSettings(environment: Environment): ReturnType<typeof readConfig> | undefined {
  try {
    return readConfig(environment)
  } catch (thrown) {
    if (!(thrown instanceof SettingsError)) throw thrown
    complain(thrown.message, exitCodes.usage)
    return undefined
  }
}

/** On the database that `serve` uses, the embedded one included while it runs. */
async function read(
  environment: Environment,
  clock: Clock,
  command: (reading: Reading) => Promise<ExitCode>,
): Promise<ExitCode> {
  const settings = readSettings(environment)
  if (settings === undefined) return exitCodes.usage
  const { config, warnings } = settings
  for (const warning of warnings) complain(warning, exitCodes.ok)
  try {
    const url = await findDatabase(config)
    const sql = openPool({ url, name: 'sluice command', connections: 1, statementTimeoutMs: 0, clock })
    const store = openStore(config, clock)
    try {
      return await command({ sql, store, config })
    } finally {
      await store.close()
      await closePool(sql, CLOSE_MS_MAX)
    }
  } catch (thrown) {
    const failure = asFailure(thrown)
    if (failure.kind === 'bug') throw thrown
    const isUsage = failure.kind === 'client' || failure.kind === 'configuration'
    return complain(failure.sentence, isUsage ? exitCodes.usage : exitCodes.failed)
  }
}

async function findDatabase({ DATABASE_URL, DATA_DIR }: Config): Promise<DatabaseLocation> {
  if (DATABASE_URL !== undefined) return parseDatabaseUrl(DATABASE_URL)
  const location = await findEmbedded(DATA_DIR)
  if (location !== undefined) return location
  const hint = 'Start sluice serve there, or set DATA_DIR or DATABASE_URL.'
  throw new Failure('outage', `No PostgreSQL runs in ${DATA_DIR}. ${hint}`)
}

/** Resolves when whoever reads standard output has room for more. */
async function print(text: string): Promise<ExitCode> {
  if (!process.stdout.write(text)) {
    await new Promise<void>((resolve) => process.stdout.once('drain', resolve))
  }
  return exitCodes.ok
}

function complain(sentence: string, exitCode: ExitCode): ExitCode {
  process.stderr.write(`${sentence}\n`)
  return exitCode
}
