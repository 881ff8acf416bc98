import type { Config } from '../config.ts'
import { ByteBudget } from '../foundation/byte-budget.ts'
import type { Clock } from '../foundation/clock.ts'
import type { LifeCycle } from '../foundation/life-cycle.ts'
import { AnswerTimes } from '../ingress/answer-times.ts'
import { type Cors, corsOf } from '../ingress/cors.ts'
import { IngressEvents } from '../ingress/events.ts'
import { ExportPath } from '../ingress/export.ts'
import { GrpcIngress } from '../ingress/grpc.ts'
import { HttpIngress } from '../ingress/http.ts'
import type { ListeningAddress } from '../ingress/listening.ts'
import { RateLimit } from '../ingress/rate-limit.ts'
import { TlsCertificate } from '../ingress/tls.ts'
import { type Signal, signals } from '../otlp/signal.ts'
import { closePool, type Sql } from '../postgres/pool.ts'
import { backlogCounter } from '../queue/count-backlog.ts'
import { Overflow } from '../queue/overflow.ts'
import { Stager, type StagerOptions } from '../queue/stage.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { startLoadShedding } from './start-load-shedding.ts'

/** What the ingress needs of the rest of the process. */
export interface IngressParts {
  openStaging: StagerOptions['open']
  /** For counting what waits in the queue. */
  backlog: Sql
  /** Why nothing can be taken now, or undefined. */
  refusal: () => string | undefined
  /** Calls back when the operator asks for files to be read again. */
  onHangup: (reload: () => Promise<void>) => unknown
  log: Log
  metrics: Metrics
  clock: Clock
  random: () => number
}

/** Where OTLP is taken. */
export interface Doors {
  http: ListeningAddress
  grpc: ListeningAddress
}

/** The backlog is counted several times a second; a database that was not heard of for so long is away. */
const REACHABLE_MS_MAX = 10_000

/** Starts everything between the senders and the queue, from the queue to the door. */
export async function startIngress(life: LifeCycle, config: Config, parts: IngressParts): Promise<Doors> {
  const { clock, random, log, metrics, refusal } = parts
  const stager = new Stager({
    open: parts.openStaging,
    close: (sql) => closePool(sql, 100),
    clock,
    onCommitted: ({ rows, durationMs }) => {
      metrics.databaseUp.set(1)
      metrics.groupRows.observe(rows)
      metrics.groupCommitDuration.observe(durationMs / 1000)
    },
    onUnknown: (rows) => metrics.unknownRows.inc(rows),
  })
  await life.start(stager)
  let countedMs = Number.NEGATIVE_INFINITY
  const overflow = new Overflow({
    policy: config.OVERFLOW_POLICY,
    sampleRate: config.OVERFLOW_SAMPLE_RATE,
    rowsMax: config.STAGING_MAX_BACKLOG,
    bytesMax: config.STAGING_MAX_BYTES,
    count: backlogCounter(parts.backlog, clock),
    onCounted: ({ rows, bytes }) => {
      countedMs = clock.monotonicMs()
      metrics.databaseUp.set(1)
      metrics.backlogRows.set(rows)
      metrics.backlogBytes.set(bytes)
    },
    onCountFailed: (error) => {
      countedMs = Number.NEGATIVE_INFINITY
      metrics.databaseUp.set(0)
      log.warn('backlog_unknown', { error })
    },
    clock,
    random,
  })
  await life.start(overflow)
  const budget = new ByteBudget(config.MAX_INFLIGHT_BYTES)
  metrics.watch('inflightBytes', () => budget.usedBytes)
  const events = new IngressEvents({ log, metrics, transport: 'http' })
  const rateLimit = config.ENABLE_RATE_LIMITING ? new RateLimit({ ...rateShare(config), clock }) : undefined
  const answerTimes = config.ENABLE_LOAD_SHEDDING ? new AnswerTimes(clock) : undefined
  const loadShedding =
    answerTimes && (await startLoadShedding(life, config, parts, { overflow, answerTimes }))
  const tls = await startTls(life, config, parts)
  const shared = {
    host: config.HOST,
    signals: Object.keys(signals) as Signal[],
    exportPath: new ExportPath({
      stager,
      overflow,
      maxBodyBytes: config.MAX_BODY_BYTES,
      packsAll: config.STAGING_COMPRESSION === 'gzip',
      answerTimes,
      events,
      clock,
    }),
    rateLimit,
    loadShedding,
    budget,
    maxBodyBytes: config.MAX_BODY_BYTES,
    requestTimeoutMs: config.REQUEST_TIMEOUT_SECONDS * 1000,
    tls,
    refusal,
    clock,
    random,
  }
  const http = new HttpIngress({
    ...shared,
    port: config.HTTP_PORT,
    socketPath: config.HTTP_SOCKET,
    cors: corsFrom(config),
    droppedStatus: config.OVERFLOW_ACCEPTED_STATUS === '200' ? 200 : 202,
    events,
  })
  const grpc = new GrpcIngress({
    ...shared,
    port: config.GRPC_PORT,
    reachable: () => clock.monotonicMs() - countedMs < REACHABLE_MS_MAX,
    events: new IngressEvents({ log, metrics, transport: 'grpc' }),
  })
  // Together, so that one drain does not wait for the other.
  await life.start({
    name: 'ingress',
    start: async () => {
      await http.start()
      await grpc.start()
    },
    stop: async (giveUp) => {
      await Promise.all([http.stop(giveUp), grpc.stop(giveUp)])
    },
  })
  return { http: http.address, grpc: grpc.address }
}

/** The part of the rate limit that one process lets in: connections are spread evenly over all of them. */
function rateShare({ RATE_LIMIT_RPS, RATE_LIMIT_BURST, PROCESSES }: Config) {
  return { perSecond: RATE_LIMIT_RPS / PROCESSES, burst: Math.floor(RATE_LIMIT_BURST / PROCESSES) }
}

function corsFrom(config: Config): Cors | undefined {
  const { CORS_ALLOWED_ORIGINS, CORS_ALLOWED_HEADERS, CORS_MAX_AGE_SECONDS } = config
  if (CORS_ALLOWED_ORIGINS === undefined) return undefined
  return corsOf({
    allowedOrigins: CORS_ALLOWED_ORIGINS,
    allowedHeaders: CORS_ALLOWED_HEADERS,
    maxAgeSeconds: CORS_MAX_AGE_SECONDS,
  })
}

/** The certificate that the settings name, or undefined; it outlives the listeners. */
async function startTls(
  life: LifeCycle,
  { TLS_CERT_FILE, TLS_KEY_FILE, TLS_CLIENT_CA_FILE }: Config,
  { log, metrics, clock, onHangup }: IngressParts,
): Promise<TlsCertificate | undefined> {
  if (TLS_CERT_FILE === undefined || TLS_KEY_FILE === undefined) return undefined
  const files = { TLS_CERT_FILE, TLS_KEY_FILE, TLS_CLIENT_CA_FILE }
  const tls = new TlsCertificate({ files, log, metrics, clock })
  await life.start(tls)
  onHangup(() => tls.reload())
  return tls
}
