import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { setTimeout as wait } from 'node:timers/promises'
import { peer } from '../../scripts/peers.ts'
import { freePort } from '../support/free-port.ts'
import type { Destination } from './js-sdk.ts'
import type { ClientSignal } from './stored.ts'

const startWithinMs = 15_000

/** What `telemetrygen` is told. */
export interface TelemetrygenOptions {
  transport: 'http' | 'grpc'
  to: Destination
  service: string
  /** Traces of two spans, metrics of one point, or log records. */
  count: number
  /** How many a second; 0 for no limit. Each trace counts as two. */
  rate?: number
  /** How many spans, metrics or log records go into one export. */
  batchSize?: number
  /** The exporters' deadline; theirs is 10 s. */
  timeoutSeconds?: number | undefined
  /** Further flags. */
  flags?: readonly string[]
}

/** Runs `telemetrygen`, which is the SDK for Go, and answers how it ended. */
export async function runTelemetrygen(
  signal: ClientSignal,
  options: TelemetrygenOptions,
): Promise<{ code: number | null; output: string }> {
  const {
    transport,
    to,
    service,
    count,
    rate = 0,
    batchSize = 100,
    timeoutSeconds = 10,
    flags = [],
  } = options
  const endpoint = transport === 'http' ? new URL(to.url).host : to.grpcTarget
  const words = [
    signal,
    '--otlp-insecure',
    ...(transport === 'http' ? ['--otlp-http'] : []),
    ...['--otlp-endpoint', endpoint],
    ...['--service', service],
    ...[`--${signal}`, String(count)],
    ...['--rate', String(rate)],
    ...['--batch-size', String(batchSize)],
    ...['--timeout', `${timeoutSeconds}s`],
    ...flags,
  ]
  const child = spawn(await peer('telemetrygen'), words, {
    // The SDK's batches of spans have a deadline of their own, 30 s, around that of the exporter.
    env: { ...process.env, OTEL_BSP_EXPORT_TIMEOUT: String(timeoutSeconds * 1000) },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const exited = once(child, 'close')
  const [out, errors] = await Promise.all([text(child.stdout), text(child.stderr)])
  const [code] = (await exited) as [number | null]
  return { code, output: out + errors }
}

/** One way through a Collector: a receiver of its own, and an exporter that sends to Sluice. */
export interface CollectorRoute {
  transport: 'http' | 'grpc'
  compression: 'gzip' | 'zstd' | 'none'
}

/** A line that the Collector logged. */
export interface CollectorLine {
  level?: string
  msg?: string
  [field: string]: unknown
}

/** An OpenTelemetry Collector that forwards to Sluice, with the exporters' own defaults for queue and retries. */
export class Collector {
  readonly log: CollectorLine[] = []
  readonly #child: ChildProcess
  readonly #ports: ReadonlyMap<CollectorRoute, { http: number; grpc: number }>
  readonly #exited: Promise<unknown>

  private constructor(
    program: string,
    config: object,
    ports: ReadonlyMap<CollectorRoute, { http: number; grpc: number }>,
  ) {
    this.#ports = ports
    // JSON is YAML.
    this.#child = spawn(program, ['--config', `yaml:${JSON.stringify(config)}`], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (stream !== null) createInterface({ input: stream }).on('line', (line) => this.#take(line))
    }
    this.#exited = once(this.#child, 'close')
  }

  /** Resolves when all its receivers listen. */
  static async start(to: Destination, routes: readonly CollectorRoute[]): Promise<Collector> {
    const ports = new Map<CollectorRoute, { http: number; grpc: number }>()
    for (const route of routes) ports.set(route, { http: await freePort(), grpc: await freePort() })
    const collector = new Collector(await peer('otelcol'), configuration(to, ports), ports)
    for (const { http, grpc } of ports.values()) {
      await collector.#listening(http)
      await collector.#listening(grpc)
    }
    return collector
  }

  /** Where to send for a route. */
  entrance(route: CollectorRoute): Destination {
    const ports = this.#ports.get(route)
    if (ports === undefined) throw new Error('the Collector was not started with this route')
    return { url: `http://127.0.0.1:${ports.http}`, grpcTarget: `127.0.0.1:${ports.grpc}` }
  }

  /** What it said from `warn` up. */
  get complaints(): CollectorLine[] {
    return this.log.filter(({ level }) => level !== 'info' && level !== 'debug')
  }

  /** Ends it with SIGTERM, upon which it sends what is in its queues. */
  async stop(): Promise<void> {
    this.#child.kill('SIGTERM')
    await this.#exited
  }

  async #listening(port: number): Promise<void> {
    const untilMs = performance.now() + startWithinMs
    while (performance.now() < untilMs && this.#child.exitCode === null) {
      if (await accepts(port)) return
      await wait(25)
    }
    const words = this.log.slice(-10).map((line) => JSON.stringify(line))
    throw new Error(`The Collector did not come up. Its last words:\n${words.join('\n')}`)
  }

  #take(line: string): void {
    try {
      this.log.push(JSON.parse(line) as CollectorLine)
    } catch {
      // Before the logger is there it speaks plain text.
      this.log.push({ level: 'error', msg: line })
    }
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}

function configuration(
  to: Destination,
  ports: ReadonlyMap<CollectorRoute, { http: number; grpc: number }>,
): object {
  const routes = [...ports].map(([{ transport, compression }, { http, grpc }], at) => ({
    receiver: `otlp/${at}`,
    protocols: {
      http: { endpoint: `127.0.0.1:${http}` },
      grpc: { endpoint: `127.0.0.1:${grpc}` },
    },
    exporter: `otlp_${transport}/${at}`,
    sending:
      transport === 'http'
        ? { endpoint: to.url, compression }
        : { endpoint: to.grpcTarget, compression, tls: { insecure: true } },
  }))
  const pipelines = routes.flatMap(({ receiver, exporter }, at) =>
    ['traces', 'metrics', 'logs'].map((signal) => [
      `${signal}/${at}`,
      { receivers: [receiver], processors: ['batch'], exporters: [exporter] },
    ]),
  )
  return {
    receivers: Object.fromEntries(routes.map(({ receiver, protocols }) => [receiver, { protocols }])),
    processors: { batch: { timeout: '100ms' } },
    exporters: Object.fromEntries(routes.map(({ exporter, sending }) => [exporter, sending])),
    service: {
      telemetry: { metrics: { level: 'none' }, logs: { encoding: 'json' } },
      pipelines: Object.fromEntries(pipelines),
    },
  }
}
