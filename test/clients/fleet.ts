import { setTimeout as wait } from 'node:timers/promises'
import { expect } from 'vitest'
import { post, spanRequest } from '../system/sluice.ts'
import { Collector, type CollectorRoute, runTelemetrygen } from './go-peers.ts'
import { type Destination, JsSdk, jsTransports } from './js-sdk.ts'
import { sendPythonExports } from './python-sdk.ts'
import { type ClientSignal, clientSignals, type Message, type Stored } from './stored.ts'

/** One client that sent, and how its own account of it reads. */
export interface Sender {
  /** Its `service.name`. */
  service: string
  signal: ClientSignal
  /** How many items it was given to send, each in an export of its own. */
  sent: number
  /** What it said of those that it gave up. */
  errors: string[]
}

/** What became of a sender's items. */
export interface Fate {
  sent: number
  lost: number
  /** Stored more than once. */
  repeated: number
}

export interface FleetOptions {
  to: Destination
  /** What the names of the services begin with. */
  name: string
  /** An export a second, so many. */
  exports: number
  /** The deadline of the SDKs' exporters, all tries together; theirs if not given, which is 10 s. */
  timeoutSeconds?: number
}

const intervalMs = 1_000
/** A Collector waits longer and longer, up to half a minute at a time. */
const COLLECTOR_MS_MAX = 45_000

/** The SDKs for JavaScript and Python, by every transport. Exports begun earlier may still be trying. */
export function sdkSenders({ to, name, exports, timeoutSeconds }: FleetOptions): Promise<Sender>[] {
  const js = jsTransports.map(async (transport): Promise<Sender> => {
    const service = `${name}: js ${transport}`
    const timeoutMs = timeoutSeconds && timeoutSeconds * 1000
    const sdk = new JsSdk({ transport, to, service, timeoutMs, oneByOne: true })
    const tracer = sdk.traces.getTracer('fleet')
    await everyInterval(exports, async (number) => tracer.startSpan(String(number)).end())
    await sdk.shutdown()
    return { service, signal: 'traces', sent: exports, errors: sdk.outcome.errors }
  })
  const python = (['http', 'grpc'] as const).map(async (transport): Promise<Sender> => {
    const service = `${name}: python ${transport}`
    const { said } = await sendPythonExports({
      ...{ transport, to, service, exports, timeoutSeconds },
      compression: 'gzip',
      intervalSeconds: intervalMs / 1000,
    })
    const errors = said.filter((line) => line.startsWith('ERROR'))
    return { service, signal: 'traces', sent: exports, errors }
  })
  return [...js, ...python]
}

/**
 * `telemetrygen` with every signal, a few exports a second one after the other: it waits for one before it begins the
 * next, and ends at the first that fails.
 */
function goSenders({ to, name, timeoutSeconds }: FleetOptions): Promise<Sender>[] {
  const count = 4
  return (['http', 'grpc'] as const).flatMap((transport) =>
    clientSignals.map(async (signal): Promise<Sender> => {
      const service = `${name}: telemetrygen ${transport}`
      const { code, output } = await runTelemetrygen(signal, {
        ...{ transport, to, service, count, timeoutSeconds },
        rate: 1,
        batchSize: 1,
      })
      return {
        service,
        signal,
        sent: signal === 'traces' ? 2 * count : count,
        errors: code === 0 ? [] : [output],
      }
    }),
  )
}

/** A Collector as it stands when nobody configures it. Its exporters go on trying until it is stopped. */
class CollectorSenders {
  readonly #routes: readonly CollectorRoute[]
  readonly #collector: Collector
  readonly #name: string

  private constructor(collector: Collector, name: string, routes: readonly CollectorRoute[]) {
    this.#collector = collector
    this.#name = name
    this.#routes = routes
  }

  /** One way through it by each transport. */
  static async start({ to, name }: FleetOptions): Promise<CollectorSenders> {
    const routes: CollectorRoute[] = [
      { transport: 'http', compression: 'gzip' },
      { transport: 'grpc', compression: 'gzip' },
    ]
    return new CollectorSenders(await Collector.start(to, routes), name, routes)
  }

  /** Gives it a span a second for each way. Resolves when it has them, not when it has sent them. */
  send({ exports }: FleetOptions): Promise<Sender>[] {
    return this.#routes.map(async (route): Promise<Sender> => {
      const service = `${this.#name}: collector ${route.transport}`
      const { url } = this.#collector.entrance(route)
      await everyInterval(exports, async (number) => {
        const traceId = `${number + 1}`.padStart(32, '0')
        const status = await post(url, spanRequest(String(number), { service, traceId }))
        if (status !== 200) throw new Error(`the Collector itself answered ${status}`)
      })
      return { service, signal: 'traces', sent: exports, errors: [] }
    })
  }

  /** Ends it, and answers what it logged as an error: that it gave something up. */
  async stop(): Promise<string[]> {
    await this.#collector.stop()
    return this.#collector.log.filter(({ level }) => level === 'error').map((line) => JSON.stringify(line))
  }
}

async function everyInterval(times: number, act: (number: number) => Promise<void>): Promise<void> {
  const startedMs = performance.now()
  for (let number = 0; number < times; number++) {
    await wait(Math.max(0, startedMs + number * intervalMs - performance.now()))
    await act(number)
  }
}

/** Looks every item of the senders up in the store. */
export function fates(senders: readonly Sender[], stored: Stored): Record<string, Fate> {
  return Object.fromEntries(
    senders.map(({ service, signal, sent }) => {
      const found = stored.items(signal, service).map((item) => identity(signal, item))
      const distinct = new Set(found).size
      return [`${service} ${signal}`, { sent, lost: sent - distinct, repeated: found.length - distinct }]
    }),
  )
}

function identity(signal: ClientSignal, item: Message): unknown {
  if (signal === 'traces') return `${item.traceId} ${item.spanId}`
  // telemetrygen gives the points of its gauge the values 0, 1, 2, …, and its log records nothing but a time.
  return signal === 'logs' ? item.timeUnixNano : JSON.stringify(item.gauge)
}

/**
 * Lets all of them send while `trouble` is made, and resolves when each has brought its items in or given them up.
 *
 * @returns what became of the items, and what the clients said of those that they gave up.
 */
export async function sendThroughTrouble(
  options: FleetOptions,
  { read, trouble }: { read: () => Promise<Stored>; trouble: () => Promise<void> },
): Promise<{ table: Record<string, Fate>; senders: Sender[] }> {
  const collector = await CollectorSenders.start(options)
  const sending = Promise.all([...sdkSenders(options), ...goSenders(options), ...collector.send(options)])
  await trouble()
  const senders = await sending
  const collecting = senders.filter(({ service }) => service.includes(': collector '))
  const missing = async () => lossesIn(fates(collecting, await read()))
  await expect.poll(missing, { timeout: COLLECTOR_MS_MAX, interval: 1_000 }).toEqual({})
  expect(await collector.stop()).toEqual([])
  return { table: fates(senders, await read()), senders }
}

/** Who lost how many items. */
export function lossesIn(table: Readonly<Record<string, Fate>>): Record<string, number> {
  const losers = Object.entries(table).filter(([, { lost }]) => lost > 0)
  return Object.fromEntries(losers.map(([client, { lost }]) => [client, lost]))
}

/** A table for whoever reads along: each client's items, and what Sluice answered. */
export function report(
  title: string,
  table: Readonly<Record<string, Fate>>,
  metrics: ReadonlyMap<string, number>,
): string {
  const lines = Object.entries(table).map(
    ([client, { sent, lost, repeated }]) =>
      `  ${client.padEnd(48)} ${sent} sent, ${lost} lost, ${repeated} stored twice`,
  )
  const answers = outcomes(metrics)
  return [
    title,
    ...lines,
    ...Object.entries(answers).map(([outcome, count]) => `  ${outcome} ${count}`),
  ].join('\n')
}

/** How many requests ended in each way, over all signals and transports. */
export function outcomes(metrics: ReadonlyMap<string, number>): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const [name, count] of metrics) {
    const [, outcome] = /^sluice_requests_total\{.*outcome="(\w+)"/.exec(name) ?? []
    if (outcome !== undefined) counts[outcome] = (counts[outcome] ?? 0) + count
  }
  return counts
}
