/**
 * A gRPC listener in a process of its own whose queue takes everything at once and keeps nothing, so that its memory and
 * its CPU time are those of the listener alone. Started by `startGrpcProcess`.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import grpc from '@grpc/grpc-js'
import { ByteBudget } from '../../src/foundation/byte-budget.ts'
import { systemClock } from '../../src/foundation/clock.ts'
import { IngressEvents } from '../../src/ingress/events.ts'
import { ExportPath } from '../../src/ingress/export.ts'
import { GrpcIngress } from '../../src/ingress/grpc.ts'
import { Reservation } from '../../src/ingress/reservation.ts'
import { type Signal, signals } from '../../src/otlp/signal.ts'
import { createLogger } from '../../src/telemetry/log.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'

/** Which listener: ours, or one of grpc-js that hands the same bytes on the same way. */
export type Listener = 'ours' | 'grpc-js'

/** What a process is started with. */
export interface GrpcProcessOptions {
  listener?: Listener
  maxBodyBytes?: number
  inflightBytes?: number
  /** How long a commit takes. */
  commitMs?: number
  /** How often the memory is looked at, which costs CPU time: 5 ms if not said. */
  sampleMs?: number
  /** Options of Node itself. */
  execArgv?: string[]
}

/** What a process has used. */
export interface Usage {
  /** User and system time since the last asking. */
  readonly cpuMs: number
  /** Resident memory now, and the most that was seen since the last asking. */
  readonly rssBytes: number
  readonly peakRssBytes: number
  readonly rows: number
  readonly inflightBytes: number
  /** How long the event loop was held at most since the last asking. */
  readonly longestPauseMs: number
}

/** A process that runs. */
export interface GrpcProcess extends AsyncDisposable {
  readonly port: number
  readonly process: ChildProcess
  usage(): Promise<Usage>
}

/** Starts a process; ending the scope ends it. */
export async function startGrpcProcess(options: GrpcProcessOptions = {}): Promise<GrpcProcess> {
  const { execArgv = [], ...told } = options
  const child = fork(import.meta.filename, [JSON.stringify(told)], { execArgv, env: {} })
  const exited = once(child, 'exit')
  const gone = exited.then(([code, signal]) => {
    throw new Error(`the listener's process ended with ${code ?? signal}`)
  })
  gone.catch(() => undefined)
  const hear = () => Promise.race([once(child, 'message'), gone]).then(([said]) => said)
  const port = (await hear()) as number
  return {
    port,
    process: child,
    async usage() {
      const answer = hear()
      child.send('usage')
      return (await answer) as Usage
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await exited
    },
  }
}

async function serve(options: GrpcProcessOptions): Promise<void> {
  const {
    listener = 'ours',
    maxBodyBytes = 20 * 1024 ** 2,
    inflightBytes = 128 * 1024 ** 2,
    commitMs = 0,
    sampleMs = 5,
  } = options
  const log = createLogger({ level: 'error', clock: systemClock })
  const events = new IngressEvents({ log, metrics: createMetrics(), transport: 'grpc' })
  let rows = 0
  const stager = {
    append: async () => {
      rows++
      if (commitMs > 0) await systemClock.sleep(commitMs)
    },
  }
  const overflow = { decide: () => ({ outcome: 'stage' }) as const, settled: () => undefined }
  const exportPath = new ExportPath({ stager, overflow, maxBodyBytes, events, clock: systemClock })
  const budget = new ByteBudget(inflightBytes)
  const port =
    listener === 'ours'
      ? await serveOurs({ exportPath, budget, events, maxBodyBytes })
      : await serveGrpcJs({ exportPath, budget, maxBodyBytes })

  let peakRssBytes = 0
  let longestPauseMs = 0
  let lookedAt = performance.now()
  setInterval(() => {
    peakRssBytes = Math.max(peakRssBytes, process.memoryUsage.rss())
    longestPauseMs = Math.max(longestPauseMs, performance.now() - lookedAt - sampleMs)
    lookedAt = performance.now()
  }, sampleMs)
  let before = process.cpuUsage()
  process.on('message', () => {
    const { user, system } = process.cpuUsage(before)
    before = process.cpuUsage()
    const rssBytes = process.memoryUsage.rss()
    const usage: Usage = {
      cpuMs: (user + system) / 1000,
      rssBytes,
      peakRssBytes: Math.max(peakRssBytes, rssBytes),
      rows,
      inflightBytes: budget.usedBytes,
      longestPauseMs,
    }
    peakRssBytes = rssBytes
    longestPauseMs = 0
    process.send?.(usage)
  })
  process.on('disconnect', () => process.exit())
  process.send?.(port)
}

type Parts = { exportPath: ExportPath; budget: ByteBudget; maxBodyBytes: number }

async function serveOurs(parts: Parts & { events: IngressEvents }): Promise<number> {
  const ingress = new GrpcIngress({
    ...parts,
    host: '127.0.0.1',
    port: 0,
    signals: Object.keys(signals) as Signal[],
    rateLimit: undefined,
    loadShedding: undefined,
    requestTimeoutMs: 60_000,
    tls: undefined,
    refusal: () => undefined,
    reachable: () => true,
    clock: systemClock,
    random: Math.random,
  })
  await ingress.start()
  return ingress.address.port
}

/** What a listener of grpc-js would be: it hands over messages that it has gathered and decompressed. */
async function serveGrpcJs({ exportPath, budget, maxBodyBytes }: Parts): Promise<number> {
  const server = new grpc.Server({
    'grpc.max_receive_message_length': maxBodyBytes,
    'grpc.max_concurrent_streams': 100,
  })
  const asIs = (bytes: Buffer) => bytes
  for (const signal of Object.keys(signals) as Signal[]) {
    const { service } = signals[signal]
    const definition: grpc.ServiceDefinition = {
      Export: {
        path: `/${service}/Export`,
        requestStream: false,
        responseStream: false,
        requestDeserialize: asIs,
        requestSerialize: asIs,
        responseDeserialize: asIs,
        responseSerialize: asIs,
      },
    }
    const exporting: grpc.handleUnaryCall<Buffer, Buffer> = (call, answer) => {
      const reservation = new Reservation(budget)
      const refuse = (details: string) => answer({ code: grpc.status.UNAVAILABLE, details })
      if (!reservation.take(call.request.length)) return refuse('too many bytes are in flight')
      const request = {
        signal,
        format: 'protobuf',
        contentEncoding: undefined,
        body: call.request,
        tenant: 'default',
        requestId: 'id',
        reservation,
      } as const
      void exportPath.accept(request).then((outcome) => {
        reservation.release()
        if (outcome.kind === 'accepted') answer(null, Buffer.alloc(0))
        else refuse(outcome.kind)
      })
    }
    server.addService(definition, { Export: exporting })
  }
  return await new Promise((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
      if (error === null) resolve(port)
      else reject(error)
    })
  })
}

if (import.meta.main) await serve(JSON.parse(process.argv[2] ?? '{}') as GrpcProcessOptions)
