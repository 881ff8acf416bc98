import { markerOf } from './generator.ts'
import { LatencyHistogram } from './latency-histogram.ts'
import { type BodyTemplate, markedBody } from './marked-body.ts'
import { requestHead, SocketClient } from './socket-client.ts'

/** What a load process is told to do, once. */
export interface LoadJob {
  /** Ingresses to share the connections among. */
  urls: readonly string[]
  seconds: number
  connections: number
  /**
   * Requests a second at a fixed schedule, whatever the answers do; undefined sends the next as soon as an answer
   * came (closed loop).
   */
  perSecond: number | undefined
  /** How long after the end of an open loop requests that were due before it are still sent. */
  lateSeconds: number
  /** Request n is a copy of template n modulo their number; with `run` it carries the marker of n. */
  templates: readonly BodyTemplate[]
  /** The run of the markers; undefined sends `bodies` as they stand. */
  run: string | undefined
  firstIndex: number
  /** What requests say in `X-Priority`, in turn; undefined says nothing. */
  priorities?: readonly string[]
  bodies: readonly { path: string; contentType: string; encoding: string; body: Uint8Array }[]
}

/** What a load process reports at the end. */
export interface LoadResult {
  seconds: number
  sent: number
  /** Requests of an open loop that were due and never sent, because the answers before them took too long. */
  unsent: number
  /** Status of each request in the order of their numbers; 0 without an answer. */
  statuses: Uint16Array
  /** When each was sent, since the start, and how long its answer took from then, in the order of their numbers. */
  sentMs: Float32Array
  tookMs: Float32Array
  latencyMicroseconds: Readonly<Record<'p50' | 'p90' | 'p99' | 'p999' | 'max', number>>
  /** How far behind its schedule the client itself ever was, in microseconds: large values blame the client. */
  clientLagMicroseconds: number
}

const closedLoopRequestsMax = 4_000_000

/**
 * Drives load over keep-alive connections. In an open loop a request that finds no free connection waits for one,
 * and its latency counts from the moment at which it was meant to be sent, so that a server that stalls cannot slow
 * down the load that measures it.
 */
export async function runLoad(job: LoadJob): Promise<LoadResult> {
  const free = Array.from(
    { length: job.connections },
    (_, place) => new SocketClient(new URL(job.urls[place % job.urls.length] ?? '')),
  )
  const all = [...free]
  const requestsMax =
    job.perSecond === undefined ? closedLoopRequestsMax : Math.ceil(job.seconds * job.perSecond)
  const statuses = new Uint16Array(requestsMax)
  const sentMs = new Float32Array(requestsMax)
  const tookMs = new Float32Array(requestsMax)
  const latencies = new LatencyHistogram()
  const bodies = job.bodies.map((one) => ({
    head: requestHead({ ...one, length: one.body.length }),
    body: Buffer.from(one.body),
  }))
  const startedMs = performance.now()
  const endMs = startedMs + job.seconds * 1000
  const lateMs = endMs + job.lateSeconds * 1000
  let [sent, open, lagMs] = [0, 0, 0]

  return new Promise((resolve) => {
    const meantMs = (number: number) =>
      job.perSecond === undefined ? performance.now() : startedMs + (number / job.perSecond) * 1000

    const send = (client: SocketClient): void => {
      const number = sent++
      const dueMs = meantMs(number)
      const { head, body } = next(number)
      open++
      sentMs[number] = performance.now() - startedMs
      client.send(head, body, (status) => {
        open--
        statuses[number] = status
        const nowMs = performance.now()
        tookMs[number] = nowMs - startedMs - (sentMs[number] ?? 0)
        latencies.record((nowMs - dueMs) * 1000)
        free.push(client)
        if (job.perSecond === undefined) pump()
      })
    }
    const next = (number: number): { head: string; body: Buffer } => {
      const ready = bodies[number % bodies.length]
      if (job.run === undefined && ready !== undefined) return ready
      const template = job.templates[(job.firstIndex + number) % job.templates.length]
      if (template === undefined) throw new Error('a load without bodies')
      const body = markedBody(template, markerOf(job.run ?? '', job.firstIndex + number))
      return {
        head: requestHead({
          path: `/v1/${template.signal}`,
          contentType: template.contentType,
          encoding: template.encoding,
          length: body.length,
          priority: job.priorities?.[number % job.priorities.length],
        }),
        body,
      }
    }
    const pump = (): void => {
      const nowMs = performance.now()
      const due =
        job.perSecond === undefined
          ? requestsMax
          : Math.min(requestsMax, Math.floor(((Math.min(nowMs, endMs) - startedMs) / 1000) * job.perSecond))
      const lastMs = job.perSecond === undefined ? endMs : lateMs
      while (sent < due && free.length > 0 && nowMs < lastMs) {
        const client = free.shift()
        if (client !== undefined) send(client)
      }
      if (job.perSecond === undefined && sent === requestsMax && nowMs < lastMs) {
        throw new Error(`a load of more than ${requestsMax} requests, which is as many as it remembers`)
      }
      const over = nowMs >= lastMs || (nowMs >= endMs && sent >= due)
      if (over && open === 0) finish(job.perSecond === undefined ? 0 : due - sent)
    }
    let lastTickMs = startedMs
    const tick = setInterval(() => {
      const nowMs = performance.now()
      lagMs = Math.max(lagMs, nowMs - lastTickMs - 1)
      lastTickMs = nowMs
      pump()
    }, 1)
    const finish = (unsent: number): void => {
      clearInterval(tick)
      for (const client of all) client.close()
      const quantile = (share: number) => latencies.quantile(share)
      resolve({
        seconds: (performance.now() - startedMs) / 1000,
        sent,
        unsent,
        statuses: statuses.slice(0, sent),
        sentMs: sentMs.slice(0, sent),
        tookMs: tookMs.slice(0, sent),
        latencyMicroseconds: {
          p50: quantile(0.5),
          p90: quantile(0.9),
          p99: quantile(0.99),
          p999: quantile(0.999),
          max: quantile(1),
        },
        clientLagMicroseconds: Math.round(lagMs * 1000),
      })
    }
    pump()
  })
}

// As a process of its own it takes one job and answers one result.
if (process.send !== undefined && import.meta.main) {
  process.once('message', (job: LoadJob) => {
    runLoad(withBuffers(job)).then(
      (result) => process.send?.(result, () => process.disconnect()),
      (error) => {
        console.error(error)
        process.exit(1)
      },
    )
  })
}

/** Buffers arrive from another process as plain byte arrays. */
function withBuffers(job: LoadJob): LoadJob {
  return {
    ...job,
    templates: job.templates.map((template) => ({
      ...template,
      common: Buffer.from(template.common),
      tail: Buffer.from(template.tail),
      packed: Buffer.from(template.packed),
    })),
  }
}
