import { readFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { loadInProcess } from './load-process.ts'
import type { Machine, Stage } from './machine.ts'
import { UsageWatch } from './processes.ts'
import { queueEmpty } from './waiting.ts'

const payloads = path.join(import.meta.dirname, '../test/payloads/bench')
const connections = 32
const warmUpSeconds = 2
const measuredSeconds = 8
const drainWithinMs = 120_000

/** Nothing is refused, so that what is measured is staging. */
const unlimited = { STAGING_MAX_BACKLOG: '100000000', STAGING_MAX_BYTES: '1TiB' }

export const benchBodies = [
  { name: '10 spans gzip', file: 'spans-10.pb.gz', encoding: 'gzip' },
  { name: '100 spans gzip', file: 'spans-100.pb.gz', encoding: 'gzip' },
  { name: '100 spans', file: 'spans-100.pb', encoding: 'identity' },
] as const

/** How the program is set up for one series of measurements. */
export const benchSetups = [
  { name: 'staged only', worker: undefined },
  { name: 'end to end', worker: {} },
  {
    name: 'end to end, batches of 200',
    worker: { BATCH_MAX_SIZE: '200', PROCESSING_QUEUE_MAX_DEPTH: '1000' },
  },
] as const

export const benchSettings = { connections, warmUpSeconds, measuredSeconds, ingress: unlimited }

export interface WholeFigure {
  setup: string
  body: string
  bytes: number
  requests: number
  requestsPerSecond: number
  /** Of all processes but the client. */
  cpuMicrosecondsPerRequest: number
  cpuByProcess: Record<string, number>
  peakMegabytes: Record<string, number>
  p50Ms: number
  p99Ms: number
  /** Answers that were no 200. */
  refused: number
  /** From the last answer to the empty queue. */
  drainSeconds: number
}

/**
 * Requests a second at saturation: 32 keep-alive connections, each sending the next request when its answer came.
 * End to end, the time runs until the queue is empty.
 */
export async function benchWhole(
  machine: Machine,
  setup: (typeof benchSetups)[number],
  body: (typeof benchBodies)[number],
): Promise<WholeFigure> {
  const name = `${benchSetups.indexOf(setup)}-${benchBodies.indexOf(body)}`
  const stage = await machine.stage(`bench-${name}`)
  try {
    const ingress = await stage.ingress(unlimited)
    const worker = setup.worker === undefined ? undefined : await stage.worker(setup.worker)
    const bytes = readFileSync(path.join(payloads, body.file))
    const load = (seconds: number) =>
      loadInProcess({
        urls: [ingress.url.origin],
        seconds,
        connections,
        perSecond: undefined,
        lateSeconds: 0,
        templates: [],
        run: undefined,
        firstIndex: 0,
        bodies: [
          {
            path: '/v1/traces',
            contentType: 'application/x-protobuf',
            encoding: body.encoding,
            body: bytes,
          },
        ],
      })
    await load(warmUpSeconds)
    if (worker !== undefined) await drained(stage)
    // A checkpoint of what came before would be paid by what is measured.
    await stage.sql`CHECKPOINT`

    const watch = new UsageWatch(
      new Map([
        ['ingress', ingress.process.pid],
        ...(worker === undefined ? [] : [['worker', worker.pid] as const]),
        ['PostgreSQL', machine.postgres.pid],
        ...(worker === undefined ? [] : [['MinIO', machine.minio.pid] as const]),
      ]),
    )
    const result = await watched(watch, load(measuredSeconds))
    const drainStartMs = performance.now()
    if (worker !== undefined) await watched(watch, drained(stage))
    const drainSeconds = worker === undefined ? 0 : (performance.now() - drainStartMs) / 1000
    watch.look()

    const refused = result.statuses.filter((status) => status !== 200).length
    const requests = result.sent - refused
    const usage = watch.result()
    const perRequest = (seconds: number) => (seconds * 1e6) / Math.max(1, requests)
    return {
      setup: setup.name,
      body: body.name,
      bytes: bytes.length,
      requests,
      requestsPerSecond: requests / (result.seconds + drainSeconds),
      cpuMicrosecondsPerRequest: perRequest(usage.reduce((total, { cpuSeconds }) => total + cpuSeconds, 0)),
      cpuByProcess: Object.fromEntries(usage.map((one) => [one.name, perRequest(one.cpuSeconds)])),
      peakMegabytes: Object.fromEntries(usage.map((one) => [one.name, one.peakBytes / 1e6])),
      p50Ms: result.latencyMicroseconds.p50 / 1000,
      p99Ms: result.latencyMicroseconds.p99 / 1000,
      refused,
      drainSeconds,
    }
  } finally {
    await stage.dispose()
  }
}

async function drained(stage: Stage): Promise<void> {
  if (!(await queueEmpty(stage, drainWithinMs))) {
    throw new Error(`the queue was not empty after ${drainWithinMs / 1000} s`)
  }
}

async function watched<T>(watch: UsageWatch, work: Promise<T>): Promise<T> {
  const over = new AbortController()
  const looking = (async () => {
    while (!over.signal.aborted) {
      await wait(500, undefined, { signal: over.signal }).catch(() => undefined)
      watch.look()
    }
  })()
  try {
    return await work
  } finally {
    over.abort()
    await looking
  }
}
