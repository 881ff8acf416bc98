#!/usr/bin/env node
import cluster from 'node:cluster'
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { announce } from './cli/announce.ts'
import { deadLetterApi } from './cli/dead-letters/api.ts'
import { type ExitCode, exitCodes } from './cli/exit-codes.ts'
import { HealthChecks } from './cli/health.ts'
import { lookingCommands, readSettings } from './cli/look.ts'
import { openStore } from './cli/open-store.ts'
import { PROCESS_NUMBER } from './cli/processes/messages.ts'
import { Supervisor } from './cli/processes/supervisor.ts'
import { SupervisorLink } from './cli/processes/supervisor-link.ts'
import { type Role, runProgram } from './cli/program.ts'
import { type Doors, startIngress } from './cli/start-ingress.ts'
import { traceHandler } from './cli/trace.ts'
import type { Config } from './config.ts'
import { backoffMs } from './foundation/backoff.ts'
import { systemClock as clock } from './foundation/clock.ts'
import { asFailure } from './foundation/failure.ts'
import { LifeCycle } from './foundation/life-cycle.ts'
import { growOldSpace, limitYoungSpace } from './foundation/memory.ts'
import type { Service } from './foundation/service.ts'
import { AdminServer } from './ingress/admin.ts'
import { clearSocket } from './ingress/listening.ts'
import { DiskGuard } from './postgres/disk-guard.ts'
import { openEmbedded } from './postgres/embedded.ts'
import { freeDiskBytes } from './postgres/embedded-folder.ts'
import { type DatabaseLocation, databaseUrlWithPassword, parseDatabaseUrl } from './postgres/location.ts'
import { migrate } from './postgres/migrate.ts'
import { ensureTraceIndexPartitions } from './postgres/partitions.ts'
import { closePool, openPool, type PoolOptions, type Sql } from './postgres/pool.ts'
import { checkServer } from './postgres/server-check.ts'
import { sqlFolder } from './postgres/statement.ts'
import { sweepQueue } from './queue/abandoned.ts'
import { relayQueue } from './queue/relay-queue.ts'
import { STAGING_CONNECT_MS_MAX } from './queue/stage.ts'
import { PartitionKeeper } from './relay/partition-keeper.ts'
import { Relay } from './relay/relay.ts'
import { Sweeper } from './relay/sweeper.ts'
import type { ObjectStore } from './sink/object-store.ts'
import { createLogger, type Log } from './telemetry/log.ts'
import { collectProcessMetrics, createMetrics, type Metrics } from './telemetry/metrics.ts'

const random = Math.random
const STATEMENT_MS_MAX = 30_000
const LOG_CLOSE_MS_MAX = 1_000
const STORE_PREPARE_MS_MAX = 2_000
/** What SIGHUP has read again. */
const reloads: (() => Promise<void>)[] = []
/** Why one of several processes stops: a Ctrl-C that reaches it after its supervisor's word is no second signal. */
const ordered = 'ordered by the supervisor'
const DATABASE_RETRY_MS = { baseMs: 250, maxMs: 5_000, random }

limitYoungSpace()
growOldSpace()
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // Whoever read our output has seen enough of it.
  if (error.code === 'EPIPE') process.exit(exitCodes.ok)
  throw error
})
const number = cluster.isWorker ? process.env[PROCESS_NUMBER] : undefined
process.exit(
  await runProgram(process.argv, packageVersion(), {
    serve: number === undefined ? serve : () => serveDoors(Number(number)),
    ...lookingCommands(process.env, clock),
  }),
)

/** The whole of Sluice, from the far end of the data to the door; it stops in the opposite order. */
async function serve({ role, guide }: { role: Role; guide: boolean }): Promise<ExitCode> {
  const settings = readSettings(process.env)
  if (settings === undefined) return exitCodes.usage
  const { config, warnings } = settings
  const isSupervisor = config.PROCESSES > 1 && role !== 'worker'
  const log = createLogger({ level: config.LOG_LEVEL, clock })
  for (const warning of warnings) log.warn('setting_unknown', { detail: warning })
  if (config.PROCESSES > 1 && role === 'worker') {
    const detail = `PROCESSES=${config.PROCESSES} has no effect on a worker; start more workers, or raise WORKER_COUNT`
    log.warn('setting_unused', { detail })
  }
  const metrics = createMetrics({ isOneOfSeveral: isSupervisor })
  collectProcessMetrics(metrics, isSupervisor ? 'supervisor' : undefined)
  let relay: Relay | undefined
  const start = async ({ life, stopping }: Run) => {
    const { location, disk } = await startDatabase(life, config, log, stopping)
    const pools = openPools(location, config)
    await life.start(pools.service)
    const store = openStore(config, clock)
    await life.start(storeService(store))
    let supervisor: Supervisor | undefined
    let started = false
    const phase = () => (stopping.signal.aborted ? 'stopping' : started ? undefined : 'starting')
    const health = new HealthChecks({
      sql: pools.look,
      store,
      phase,
      processes: () => supervisor?.check,
      complaints: () => relay?.complaints,
      clock,
    })
    const deadLetters = deadLetterApi({
      sql: pools.look,
      backlogMax: { rows: config.STAGING_MAX_BACKLOG, bytes: config.STAGING_MAX_BYTES },
      log,
      clock,
    })
    const admin = new AdminServer({
      host: config.ADMIN_HOST,
      port: config.ADMIN_PORT,
      token: config.ADMIN_TOKEN,
      ready: () => health.ready(),
      health: () => health.health(),
      api: { '/traces/:id': traceHandler(pools.look, store), ...deadLetters.gets },
      posts: deadLetters.posts,
      counts: async () => (await supervisor?.counts()) ?? metrics.registry,
      log,
      clock,
    })
    await life.start(admin)
    await untilAvailable('database', log, stopping.signal, async () => {
      await checkServer(pools.look)
      await migrate(pools.look)
    })
    if (!stopping.signal.aborted && role !== 'ingress') {
      await prepareStore(store, log, metrics)
      relay = await startRelay(life, config, { pools, store, log, metrics })
    }
    let doors: Doors | undefined
    if (!stopping.signal.aborted && role !== 'worker') {
      if (isSupervisor) {
        supervisor = await superviseDoors(config, { location, stopping: stopping.signal, log, metrics })
        await life.start(supervisor)
        doors = supervisor.doors
      } else {
        doors = await startDoors(life, config, { location, disk, log, metrics })
      }
    }
    started = true
    if (stopping.signal.aborted) return
    announce({ config, role, guide, location, store, doors, admin: admin.address, log })
  }
  return await runUntilStopped(config, log, start, () => relay?.batchesInHand ?? 0)
}

/** One of several processes that take OTLP; the one above it, in `serve`, does the rest. */
async function serveDoors(number: number): Promise<ExitCode> {
  const settings = readSettings(process.env)
  if (settings === undefined) return exitCodes.usage
  const { config } = settings
  const log = createLogger({ level: config.LOG_LEVEL, clock, process: number })
  const metrics = createMetrics({ isOneOfSeveral: true })
  collectProcessMetrics(metrics, String(number))
  return await runUntilStopped(config, log, async ({ life, stopping }) => {
    const supervisor = new SupervisorLink({
      metrics,
      onReload: () => reload(),
      onStop: () => stopping.abort(ordered),
      clock,
    })
    await life.start(supervisor)
    const { databaseUrl, ports } = await supervisor.begun
    const disk = config.DATABASE_URL === undefined ? await startDiskGuard(life, config, log) : undefined
    const location = parseDatabaseUrl(databaseUrl)
    supervisor.serving(await startDoors(life, { ...config, ...ports }, { location, disk, log, metrics }))
  })
}

interface Run {
  life: LifeCycle
  /** Aborts when a stop begins. */
  stopping: AbortController
}

/** Starts what `start` does, waits until a stop begins, and stops it. */
async function runUntilStopped(
  config: Config,
  log: Log,
  start: (run: Run) => Promise<void>,
  batchesInHand = () => 0,
): Promise<ExitCode> {
  const life = new LifeCycle(clock)
  const stopping = new AbortController()
  const stopped = stopOnSignal(stopping, config, log)
  const grace = () => clock.deadline(config.SHUTDOWN_GRACE_SECONDS * 1000)
  crashLoudly(log)
  try {
    await start({ life, stopping })
    await stopped
  } catch (error) {
    log.error('start_failed', { error })
    await stopAll(life, grace(), batchesInHand, log)
    return asFailure(error).kind === 'configuration' ? exitCodes.usage : exitCodes.failed
  }
  const giveUp = grace()
  log.info('stopping', { grace_seconds: config.SHUTDOWN_GRACE_SECONDS })
  return await stopAll(life, giveUp, batchesInHand, log)
}

interface Pools {
  /** For people and health checks: never on the way of a request. */
  look: Sql
  claims: Sql
  settles: Sql
  /** Of one connection: its session holds the lock of the only sweeper. */
  sweeper: Sql
  service: Service
}

/** One private PostgreSQL, or the one that `DATABASE_URL` names. */
async function startDatabase(
  life: LifeCycle,
  config: Config,
  log: Log,
  stopping: AbortController,
): Promise<{ location: DatabaseLocation; disk: DiskGuard | undefined }> {
  const { DATABASE_URL, DATA_DIR } = config
  if (DATABASE_URL !== undefined) return { location: parseDatabaseUrl(DATABASE_URL), disk: undefined }
  const embedded = await openEmbedded({
    dataDir: DATA_DIR,
    log: (level, detail) => log[level]('postgresql', { detail }),
    onOwnershipLost: (error) => {
      log.error('ownership_lost', { error })
      stopping.abort()
    },
    signal: stopping.signal,
    clock,
  })
  await life.start({ name: 'postgresql', start: async () => undefined, stop: () => embedded.stop() })
  return { location: embedded.location, disk: await startDiskGuard(life, config, log) }
}

async function startDiskGuard(life: LifeCycle, { DATA_DIR }: Config, log: Log): Promise<DiskGuard> {
  const onFailed = (error: unknown) => log.warn('disk_unknown', { error })
  const disk = new DiskGuard(() => freeDiskBytes(DATA_DIR), clock, onFailed)
  await life.start(disk)
  return disk
}

/** Small pools apart, so that no kind of statement starves another. */
function openPools(url: DatabaseLocation, config: Config): Pools {
  const look = openNamed(url, 'look', 2)
  const claims = openNamed(url, 'claims', 2, { planCacheMode: 'force_generic_plan' })
  const settles = openNamed(url, 'settles', config.WORKER_COUNT + 2)
  const sweeper = openNamed(url, 'sweeper', 1)
  return { look, claims, settles, sweeper, service: poolService('pools', [look, claims, settles, sweeper]) }
}

function openNamed(
  url: DatabaseLocation,
  name: string,
  connections: number,
  changes: Partial<PoolOptions> = {},
): Sql {
  const timeouts = { statementTimeoutMs: STATEMENT_MS_MAX, clock }
  return openPool({ url, name: `sluice ${name}`, connections, ...timeouts, ...changes })
}

function poolService(name: string, pools: readonly Sql[]): Service {
  const stop = async () => void (await Promise.all(pools.map((pool) => closePool(pool, 1_000))))
  return { name, start: async () => undefined, stop }
}

/** What takes OTLP in this process. */
async function startDoors(
  life: LifeCycle,
  config: Config,
  { location, disk, log, metrics }: Above & { disk: DiskGuard | undefined },
): Promise<Doors> {
  const backlog = openNamed(location, 'backlog', 1)
  await life.start(poolService('backlog pool', [backlog]))
  return await startIngress(life, config, {
    openStaging: (onNotice) => {
      // One connection, of which there are few.
      return openNamed(location, 'staging', 1, { connectTimeoutMs: STAGING_CONNECT_MS_MAX, onNotice })
    },
    backlog,
    refusal: () => (disk?.isNearlyFull ? 'less than 1 GiB of disk is free' : undefined),
    onHangup: (reload) => reloads.push(reload),
    log,
    metrics,
    clock,
    random,
  })
}

/** Several processes that do; `supervisor` is to be started. */
async function superviseDoors(
  { PROCESSES, HTTP_PORT, GRPC_PORT, HTTP_SOCKET }: Config,
  { location, stopping, log, metrics }: Above & { stopping: AbortSignal },
): Promise<Supervisor> {
  if (HTTP_SOCKET !== undefined) await clearSocket('OTLP/HTTP', HTTP_SOCKET)
  const supervisor = new Supervisor({
    processes: PROCESSES,
    databaseUrl: databaseUrlWithPassword(location),
    ports: { HTTP_PORT, GRPC_PORT },
    stopping,
    metrics,
    log,
    clock,
    random,
  })
  reloads.push(async () => supervisor.reload())
  return supervisor
}

interface Above {
  location: DatabaseLocation
  log: Log
  metrics: Metrics
}

function storeService(store: ObjectStore): Service {
  return { name: 'store', start: async () => undefined, stop: () => store.close() }
}

/** A store that is away at the start is what the queue is for; one that refuses us needs an operator. */
async function prepareStore(store: ObjectStore, log: Log, metrics: Metrics): Promise<void> {
  try {
    // Not the store's own deadline: what is taken meanwhile needs no store.
    await store.prepare(clock.deadline(STORE_PREPARE_MS_MAX))
    metrics.storeUp.set(1)
  } catch (error) {
    if (asFailure(error).kind === 'configuration') throw error
    metrics.storeUp.set(0)
    log.error('store_unavailable', { store: store.description, error })
  }
}

interface Parts {
  pools: Pools
  log: Log
  metrics: Metrics
}

async function startRelay(
  life: LifeCycle,
  settings: Config,
  { pools, store, log, metrics }: Parts & { store: ObjectStore },
): Promise<Relay> {
  const { claims, settles, look } = pools
  const leaseSeconds = settings.LEASE_SECONDS
  const keyPrefix = settings.S3_PREFIX
  await life.start(
    new PartitionKeeper({ ensurePartitions: () => ensureTraceIndexPartitions(look), clock, log }),
  )
  await life.start(
    new Sweeper({
      queue: sweepQueue(pools.sweeper),
      store,
      keyPrefix,
      leaseSeconds,
      clock,
      random,
      log,
      metrics,
    }),
  )
  const relay = new Relay({
    queue: relayQueue({ claims, settles, owner: `${hostname()}:${process.pid}`, leaseSeconds, clock }),
    store,
    keyPrefix,
    leaseSeconds,
    attemptsMax: settings.MAX_ATTEMPTS,
    backoff: { baseMs: settings.RETRY_BASE_MS, maxMs: settings.RETRY_MAX_MS, random },
    batchRowsMax: settings.BATCH_MAX_SIZE,
    flushIntervalMs: settings.BATCH_FLUSH_INTERVAL_MS,
    workers: settings.WORKER_COUNT,
    bufferRowsMax: settings.PROCESSING_QUEUE_MAX_DEPTH,
    bufferBytesMax: settings.PROCESSING_QUEUE_MAX_BYTES,
    circuitFailureThreshold: settings.CIRCUIT_FAILURE_THRESHOLD,
    circuitResetSeconds: settings.CIRCUIT_RESET_SECONDS,
    clock,
    random,
    log,
    metrics,
  })
  await life.start(relay)
  return relay
}

/** Tries until it works, as long as what stands in the way is an outage. */
async function untilAvailable(
  what: string,
  log: Log,
  stopping: AbortSignal,
  work: () => Promise<void>,
): Promise<void> {
  for (let failures = 0; !stopping.aborted; failures++) {
    try {
      return await work()
    } catch (error) {
      if (asFailure(error).kind !== 'outage') throw error
      log.warn(`${what}_unavailable`, { error })
      await clock.sleep(backoffMs(failures, DATABASE_RETRY_MS), stopping)
    }
  }
}

/**
 * Resolves when a stop begins, with SIGTERM or SIGINT above all; the second signal ends the process at once. SIGHUP is a
 * terminal that went away, unless there may be files to read again.
 */
function stopOnSignal(stopping: AbortController, config: Config, log: Log): Promise<void> {
  return new Promise((resolve) => {
    stopping.signal.addEventListener('abort', () => resolve(), { once: true })
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
      process.on(signal, () => {
        if (signal === 'SIGHUP' && config.TLS_CERT_FILE !== undefined) {
          log.info('signal', { signal })
          return reload()
        }
        if (stopping.signal.reason === ordered) return
        if (stopping.signal.aborted) process.exit(exitCodes.failed)
        log.info('signal', { signal })
        stopping.abort()
      })
    }
  })
}

function reload(): void {
  for (const read of reloads) void read()
}

/** A bug ends the process at once: what it held is on disk or under a lease. */
function crashLoudly(log: Log): void {
  process.on('uncaughtException', (error) => {
    log.error('crashed', { error })
    const exit = () => process.exit(exitCodes.failed)
    closeLog(log).then(exit, exit)
  })
}

async function stopAll(
  life: LifeCycle,
  giveUp: AbortSignal,
  batchesInHand: () => number,
  log: Log,
): Promise<ExitCode> {
  let exitCode: ExitCode = exitCodes.ok
  try {
    await life.stop(giveUp)
  } catch (error) {
    log.error('stop_failed', { error })
    exitCode = exitCodes.failed
  }
  const batches = batchesInHand()
  if (giveUp.aborted || batches > 0) {
    log.error('stopped_early', { reason: 'grace_used_up', batches_left_to_their_leases: batches })
    exitCode = exitCodes.failed
  } else if (exitCode === exitCodes.ok) {
    log.info('stopped')
  }
  await closeLog(log)
  return exitCode
}

/** Whoever reads our output may have stopped reading it: that must not keep the process alive. */
async function closeLog(log: Log): Promise<void> {
  await Promise.race([log.close(), clock.sleep(LOG_CLOSE_MS_MAX)])
}

function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(join(sqlFolder(), '..', 'package.json'), 'utf8')) as {
    version: string
  }
  return version
}
