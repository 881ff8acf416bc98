import { setTimeout as wait } from 'node:timers/promises'
import { loadInProcess } from '../load-process.ts'
import { UsageWatch } from '../processes.ts'
import { type BenchBody, loadOf } from './bodies.ts'
import type { Subject } from './subject.ts'

export const saturation = { connections: 32, warmUpSeconds: 2, measuredSeconds: 8 } as const

/** What one system did with one body at saturation, in one round. */
export interface SaturationFigure {
  subject: string
  body: string
  requests: number
  /** End to end: until what was taken was where it goes. */
  requestsPerSecond: number
  /** Of all its processes. */
  cpuMicrosecondsPerRequest: number
  cpuByProcess: Record<string, number>
  peakMegabytes: Record<string, number>
  p50Ms: number
  p99Ms: number
  /** Answers that were no 200. */
  refused: number
  /** From the last answer until everything was where it goes. */
  drainSeconds: number
}

/** Requests a second of connections that each send the next request when their answer came. */
export async function measureSaturation(subject: Subject, body: BenchBody): Promise<SaturationFigure> {
  const load = (seconds: number) =>
    loadInProcess(loadOf(body, { url: subject.url, seconds, connections: saturation.connections }))
  await subject.settle()
  const warmUp = await load(saturation.warmUpSeconds)
  await subject.drained(taken(warmUp.statuses))
  await subject.settle()

  const watch = new UsageWatch(subject.pids)
  const result = await watched(watch, load(saturation.measuredSeconds))
  const requests = taken(result.statuses)
  const drainStartMs = performance.now()
  await watched(watch, subject.drained(requests))
  const drainSeconds = (performance.now() - drainStartMs) / 1000
  watch.look()
  const usage = watch.result()
  const perRequest = (seconds: number) => (seconds * 1e6) / Math.max(1, requests)
  return {
    subject: subject.name,
    body: body.name,
    requests,
    requestsPerSecond: requests / (result.seconds + drainSeconds),
    cpuMicrosecondsPerRequest: perRequest(usage.reduce((total, { cpuSeconds }) => total + cpuSeconds, 0)),
    cpuByProcess: Object.fromEntries(usage.map((one) => [one.name, perRequest(one.cpuSeconds)])),
    peakMegabytes: Object.fromEntries(usage.map((one) => [one.name, one.peakBytes / 1e6])),
    p50Ms: result.latencyMicroseconds.p50 / 1000,
    p99Ms: result.latencyMicroseconds.p99 / 1000,
    refused: result.sent - requests,
    drainSeconds,
  }
}

function taken(statuses: Uint16Array): number {
  return statuses.reduce((count, status) => count + (status === 200 ? 1 : 0), 0)
}

/** Looks at the processes twice a second while the work goes on. */
export async function watched<T>(watch: UsageWatch, work: Promise<T>): Promise<T> {
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
