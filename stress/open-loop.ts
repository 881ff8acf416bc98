import { setTimeout as wait } from 'node:timers/promises'
import { account, describeAccount, expectedAccount, isExact } from './account.ts'
import { generateRequest, markerOf } from './generator.ts'
import { Ledger, promisedBy } from './ledger.ts'
import type { LoadJob, LoadResult } from './load.ts'
import { loadInProcess } from './load-process.ts'
import type { Machine, Stage } from './machine.ts'
import { type BodyTemplate, bodyTemplate, jsonTemplate, markedPlain } from './marked-body.ts'
import { canonicalRequest } from './otlp-messages.ts'
import { UsageWatch } from './processes.ts'
import { type Report, renderTable } from './report.ts'
import { queueEmpty } from './waiting.ts'

const runSeconds = 60
const rampSeconds = 3
const lateSecondsMax = 15
/** A rate is borne when its answers are, and when what comes in does not pile up for more than this. */
const p99Max = 150_000
const backlogSecondsMax = 2
const connections = 64
const templateCount = 48
const run = 'load'
const lookEveryMs = 3_000
const drainWithinMs = 60_000

/** What differs from the defaults: the faster profile, and a backlog that never refuses. */
const workerSettings = { BATCH_MAX_SIZE: '200', PROCESSING_QUEUE_MAX_DEPTH: '1000' }
const ingressSettings = { STAGING_MAX_BACKLOG: '1000000', STAGING_MAX_BYTES: '16GiB' }

export interface OpenLoopFigures {
  settings: Record<string, string>
  ramp: { perSecond: number; p99Ms: number; backlogRows: number; borne: boolean }[]
  perSecond: number
  requestsPerSecond: number
  itemsPerSecond: number
  latencyMs: Record<string, number>
  clientLagMs: number
  unsent: number
  processes: { name: string; cpuMicrosecondsPerRequest: number; peakMegabytes: number }[]
  drainSeconds: number
}

/** Open-loop load for 60 s at the highest rate that a short ramp bears, and the exact account afterwards. */
export async function runOpenLoop(options: {
  machine: Machine
  report: Report
  seed: number
  say: (line: string) => void
}): Promise<OpenLoopFigures> {
  const { machine, report, seed, say } = options
  const stage = await machine.stage('open-loop')
  const [ingress, worker] = await Promise.all([stage.ingress(ingressSettings), stage.worker(workerSettings)])
  const load = new MarkedLoad(seed, ingress.url)

  const ramp: OpenLoopFigures['ramp'] = []
  const bears = async (perSecond: number): Promise<boolean> => {
    const { latencyMicroseconds, unsent } = await load.run(perSecond, rampSeconds)
    const { p99 } = latencyMicroseconds
    const backlogRows = await pendingRows(stage)
    const borne = unsent === 0 && p99 <= p99Max && backlogRows <= backlogSecondsMax * perSecond
    ramp.push({ perSecond, p99Ms: p99 / 1000, backlogRows, borne })
    say(
      `  ramp: ${perSecond}/s ${borne ? 'borne' : 'not borne'} (p99 ${(p99 / 1000).toFixed(0)} ms, ${backlogRows} rows waiting)`,
    )
    await queueEmpty(stage, drainWithinMs)
    return borne
  }
  const perSecond = await highest(bears)

  say(`  … ${perSecond} requests a second for ${runSeconds} s, whatever the answers do`)
  const watch = new UsageWatch(
    new Map([
      ['ingress', ingress.process.pid],
      ['worker', worker.pid],
      ['PostgreSQL', machine.postgres.pid],
      ['MinIO', machine.minio.pid],
    ]),
  )
  const before = load.ledger.entries.size
  const running = load.run(perSecond, runSeconds)
  await watchBacklog(stage, watch, running, say)
  const result = await running
  const drainStartMs = performance.now()
  const drained = await queueEmpty(stage, drainWithinMs)
  const drainSeconds = (performance.now() - drainStartMs) / 1000
  watch.look()

  const entries = [...load.ledger.entries.values()].slice(before)
  const stored = entries.filter(({ promised }) => promised === 'stored')
  const items = stored.reduce((total, entry) => total + entry.items, 0)
  const figures: OpenLoopFigures = {
    settings: { ...ingressSettings, ...workerSettings, connections: String(connections) },
    ramp,
    perSecond,
    requestsPerSecond: stored.length / result.seconds,
    itemsPerSecond: items / result.seconds,
    latencyMs: Object.fromEntries(
      Object.entries(result.latencyMicroseconds).map(([name, value]) => [name, value / 1000]),
    ),
    clientLagMs: result.clientLagMicroseconds / 1000,
    unsent: result.unsent,
    processes: watch.result().map(({ name, cpuSeconds, peakBytes }) => ({
      name,
      cpuMicrosecondsPerRequest: (cpuSeconds * 1e6) / Math.max(1, stored.length),
      peakMegabytes: peakBytes / 1e6,
    })),
    drainSeconds,
  }
  say(`\n${figuresTable(figures)}\n`)
  report.check('every request that is sent gets its 200', {
    expected: `${entries.length} × 200`,
    seen: `${stored.length} × 200${result.unsent === 0 ? '' : `, ${result.unsent} never sent: the machine does not bear the rate`}`,
    ok: stored.length === entries.length && stored.length > 0,
  })
  report.check('the queue is empty soon afterwards', {
    expected: `within ${drainWithinMs / 1000} s`,
    seen: drained ? `${drainSeconds.toFixed(1)} s` : 'not empty',
    ok: drained,
  })
  await stage.terminate()
  report.progress(`reading back ${load.ledger.entries.size} requests, the ramp's included`)
  let saidMs = performance.now()
  const exact = await account(stage, load.ledger, {
    decodeEvery: 50,
    onProgress(done, all) {
      if (performance.now() - saidMs < 3_000) return
      saidMs = performance.now()
      report.progress(`${done} of ${all} objects`)
    },
  })
  report.check('every 200 of ramp and run is stored once and equal', {
    expected: expectedAccount(load.ledger),
    seen: describeAccount(exact),
    ok: isExact(exact),
  })
  return figures
}

/** Doubles the rate until it is not borne, then halves the gap twice. */
async function highest(bears: (perSecond: number) => Promise<boolean>): Promise<number> {
  let low = 100
  let high = 200
  while (high <= 25_600 && (await bears(high))) {
    low = high
    high *= 2
  }
  for (let halvings = 0; halvings < 2; halvings++) {
    const middle = Math.round((low + high) / 2)
    if (await bears(middle)) low = middle
    else high = middle
  }
  // A rate that was borne for 3 s is the edge; what is asked for a minute stays below it.
  return Math.round(low * 0.8)
}

/** Loads one after the other whose requests have numbers, and so markers, of their own, and the ledger of them all. */
export class MarkedLoad {
  readonly ledger = new Ledger()
  readonly #url: URL
  readonly #templates: readonly { sent: BodyTemplate; protobuf: BodyTemplate }[]
  #index = 0

  constructor(seed: number, url: URL, format: 'protobuf' | 'json' = 'protobuf') {
    this.#url = url
    const options = { seed, run: 'template', itemsMax: 100, format, encoding: 'identity' } as const
    this.#templates = Array.from({ length: templateCount }, (_, index) => {
      const { signal, items, body, protobuf: bytes } = generateRequest(options, index)
      const encoding = index % 4 === 0 ? 'identity' : 'gzip'
      const protobuf = bodyTemplate(signal, encoding, items, bytes)
      if (format === 'protobuf') return { sent: protobuf, protobuf }
      const upToEndOfList = Buffer.concat([body.subarray(0, body.lastIndexOf(']')), Buffer.from(',')])
      return { sent: jsonTemplate(signal, encoding, items, upToEndOfList), protobuf }
    })
  }

  /** `priorities` is what the requests say in `X-Priority`, in turn. */
  async run(
    perSecond: number,
    seconds: number,
    { priorities, lateSeconds = lateSecondsMax }: Partial<Pick<LoadJob, 'priorities' | 'lateSeconds'>> = {},
  ): Promise<LoadResult> {
    const result = await loadInProcess({
      urls: [this.#url.origin],
      seconds,
      connections,
      perSecond,
      lateSeconds,
      templates: this.#templates.map(({ sent }) => sent),
      run,
      firstIndex: this.#index,
      ...(priorities === undefined ? {} : { priorities }),
      bodies: [],
    })
    for (const status of result.statuses) this.#record(this.#index++, status)
    return result
  }

  #record(index: number, status: number): void {
    const template = this.#templates[index % this.#templates.length]
    if (template === undefined) return
    const { sent, protobuf } = template
    const marker = markerOf(run, index)
    const answer =
      status === 0
        ? ({ kind: 'lost', why: 'no answer', tookMs: 0 } as const)
        : ({ ...answered, status } as const)
    this.ledger.add({
      marker,
      signal: sent.signal,
      items: sent.items,
      answer,
      promised: promisedBy(answer),
      equals(stored) {
        const expected = markedPlain(protobuf, marker)
        if (stored.equals(expected)) return true
        // JSON has no one form in protobuf: what is at its default may be written or left out.
        if (sent === protobuf) return false
        return canonicalRequest(sent.signal, stored) === canonicalRequest(sent.signal, expected)
      },
    })
  }
}

const answered = {
  kind: 'answered',
  retryAfter: undefined,
  contentType: undefined,
  body: Buffer.alloc(0),
  tookMs: 0,
} as const

/** A line every few seconds: what came in, what came out, what waits. */
async function watchBacklog(
  stage: Stage,
  watch: UsageWatch,
  running: Promise<unknown>,
  say: (line: string) => void,
): Promise<void> {
  const over = new AbortController()
  running.then(
    () => over.abort(),
    () => over.abort(),
  )
  const startedMs = performance.now()
  let last = await counted(stage)
  let lastMs = startedMs
  while (!over.signal.aborted) {
    await wait(lookEveryMs, undefined, { signal: over.signal }).catch(() => undefined)
    watch.look()
    const now = await counted(stage)
    const nowMs = performance.now()
    const seconds = (nowMs - lastMs) / 1000
    const rate = (to: number, from: number) => ((to - from) / seconds).toFixed(0).padStart(6)
    const waiting = await pendingRows(stage)
    say(
      `  ${((nowMs - startedMs) / 1000).toFixed(0).padStart(3)} s: in ${rate(now.stagedRows, last.stagedRows)}/s, ` +
        `out ${rate(now.storedRows, last.storedRows)}/s, waiting ${waiting}`,
    )
    last = now
    lastMs = nowMs
  }
}

async function counted(stage: Stage): Promise<{ stagedRows: number; storedRows: number }> {
  const all = await Promise.all(stage.processes.map((one) => one.metrics()))
  const total = (name: string) => all.reduce((sum, metrics) => sum + (metrics.get(name) ?? 0), 0)
  return {
    stagedRows: total('sluice_staged_rows_total'),
    storedRows: total('sluice_stored_rows_total'),
  }
}

async function pendingRows(stage: Stage): Promise<number> {
  const [row] = await stage.sql<{ rows: number }[]>`
    SELECT count(*)::int AS rows FROM ingestion_queue WHERE batch_id IS NULL`
  return row?.rows ?? 0
}

function figuresTable(figures: OpenLoopFigures): string {
  const { latencyMs, processes } = figures
  const total = processes.reduce((sum, { cpuMicrosecondsPerRequest }) => sum + cpuMicrosecondsPerRequest, 0)
  return [
    `open loop, ${figures.perSecond}/s asked for: ${figures.requestsPerSecond.toFixed(0)} requests/s, ` +
      `${figures.itemsPerSecond.toFixed(0)} items/s`,
    `answer from its intended start: ${Object.entries(latencyMs)
      .map(([name, ms]) => `${name.replace('p999', 'p99.9')} ${ms.toFixed(1)} ms`)
      .join(', ')} (the client itself was late by ${figures.clientLagMs.toFixed(1)} ms at most)`,
    `settings: ${Object.entries(figures.settings)
      .map(([name, value]) => `${name}=${value}`)
      .join(' ')}`,
    '',
    renderTable(
      [
        ['process', 'CPU a request', 'peak memory'],
        ...processes.map(({ name, cpuMicrosecondsPerRequest, peakMegabytes }) => [
          name,
          `${cpuMicrosecondsPerRequest.toFixed(0)} µs`,
          `${peakMegabytes.toFixed(0)} MB`,
        ]),
        ['all', `${total.toFixed(0)} µs`, ''],
      ],
      [12, 14, 12],
    ),
  ].join('\n')
}
