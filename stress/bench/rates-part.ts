import type { Machine } from '../machine.ts'
import {
  type AnswerTimes,
  answerTimesCells,
  answerTimesColumns,
  answerTimesWidths,
  measureAnswerTimes,
} from './answer-times.ts'
import { type Bench, type BenchPart, type Goal, median, type PartResult } from './bench.ts'
import { type BenchBody, benchBodies } from './bodies.ts'
import { type CollectorQueue, startCollector } from './collector.ts'
import { measureSaturation, type SaturationFigure, saturation } from './saturation.ts'
import { startSluice } from './sluice.ts'
import { startSteadyMachine } from './steady-machine.ts'
import type { Subject } from './subject.ts'

/** How many times as fast as the Collector with fsync. */
const timesWanted: Readonly<Record<string, number>> = {
  '10 spans gzip': 5,
  '100 spans gzip': 5,
  '100 spans': 3,
}
const cpuShareWanted = 0.5
const p99MsWanted = 50
const megabytesWanted = 300
const openLoop = { share: 0.7, seconds: 20 } as const

interface LatencyFigure extends AnswerTimes {
  body: string
}

interface Figures {
  rounds: SaturationFigure[]
  latencies: LatencyFigure[]
  disk: { body: string; walBytesPerByte: number; dataBytesPerByte: number }[]
}

/** Requests a second at saturation, ours and the Collector's in turns, and answer times at 70 % of it. */
export const rates: BenchPart = {
  name: 'rates',
  async measure(bench) {
    const machine = await startSteadyMachine(bench.say)
    try {
      const figures: Figures = { rounds: [], latencies: [], disk: [] }
      for (const body of bench.bodies) await measureBody(bench, machine, body, figures)
      return result(bench, figures)
    } finally {
      await machine.stop()
    }
  },
}

async function measureBody(bench: Bench, machine: Machine, body: BenchBody, figures: Figures): Promise<void> {
  const name = `bench-${benchBodies.indexOf(body)}`
  for (let round = 1; round <= bench.rounds; round++) {
    const sluice = await startSluice(machine, `${name}-${round}`, bench.settings)
    try {
      const before = await writtenBytes(sluice.stage.sql)
      const figure = await measureOne(bench, sluice, body, round)
      const after = await writtenBytes(sluice.stage.sql)
      figures.rounds.push(figure)
      // The warm-up's requests are written too.
      const [sent] = await sluice.stage.sql<{ bytes: number }[]>`
        SELECT sum(bytes)::float8 AS bytes FROM stored_object`
      const payloadBytes = sent?.bytes ?? 1
      figures.disk.push({
        body: body.name,
        walBytesPerByte: (after.wal - before.wal) / payloadBytes,
        dataBytesPerByte: (after.data - before.data) / payloadBytes,
      })
      figures.latencies.push(await measureLatency(bench, sluice, body, figure.requestsPerSecond))
    } finally {
      await sluice.close()
    }
    if (bench.collector === undefined) continue
    for (const queue of ['fsync', 'memory'] satisfies CollectorQueue[]) {
      const collector = await startCollector(bench.collector, queue)
      try {
        figures.rounds.push(await measureOne(bench, collector, body, round))
      } finally {
        await collector.close()
      }
    }
  }
}

async function measureOne(
  { say, rounds }: Bench,
  subject: Subject,
  body: BenchBody,
  round: number,
): Promise<SaturationFigure> {
  const figure = await measureSaturation(subject, body)
  say(
    `${body.name}, round ${round} of ${rounds}, ${subject.name}: ${figure.requestsPerSecond.toFixed(0)} requests/s, ` +
      `${figure.cpuMicrosecondsPerRequest.toFixed(0)} µs`,
  )
  return figure
}

/** Requests come at 70 % of the round's peak whatever the answers do, and count from when they were due. */
async function measureLatency(
  { say }: Bench,
  sluice: Subject,
  body: BenchBody,
  peak: number,
): Promise<LatencyFigure> {
  const perSecond = Math.round(peak * openLoop.share)
  const { seconds } = openLoop
  say(`${body.name}, ${perSecond} requests a second for ${seconds} s, whatever the answers do`)
  const times = await measureAnswerTimes(sluice, body, { perSecond, seconds })
  say(`p50 ${times.p50Ms.toFixed(1)} ms, p99 ${times.p99Ms.toFixed(1)} ms`)
  return { body: body.name, ...times }
}

/** Bytes that PostgreSQL has written since it began: log, and tables with their indexes (PostgreSQL, pg_stat_io). */
async function writtenBytes(
  sql: Awaited<ReturnType<Machine['stage']>>['sql'],
): Promise<{ wal: number; data: number }> {
  const [row] = await sql<{ wal: number; data: number }[]>`
    SELECT
      coalesce(sum(write_bytes) FILTER (WHERE object = 'wal'), 0)::float8 AS wal,
      coalesce(sum(write_bytes) FILTER (WHERE object <> 'wal'), 0)::float8 AS data
    FROM pg_stat_io`
  return row ?? { wal: 0, data: 0 }
}

function result(bench: Bench, figures: Figures): PartResult {
  return {
    tables: [
      {
        title: `End to end at saturation: ${saturation.connections} connections, ${saturation.measuredSeconds} s, ${bench.rounds} rounds in turns; medians`,
        rows: [
          [
            'body',
            '',
            'requests/s',
            'CPU a request',
            'of which',
            'p50',
            'p99',
            'no 200',
            'drain',
            'peak memory',
          ],
          ...summaries(figures.rounds).map((one) => [
            one.body,
            one.subject,
            one.requestsPerSecond.toFixed(0),
            `${one.cpuMicrosecondsPerRequest.toFixed(0)} µs`,
            parts(one.cpuByProcess),
            `${one.p50Ms.toFixed(1)} ms`,
            `${one.p99Ms.toFixed(1)} ms`,
            String(one.refused),
            `${one.drainSeconds.toFixed(1)} s`,
            parts(one.peakMegabytes),
          ]),
        ],
        widths: [14, 32, 10, 13, 28, 9, 9, 6, 7, 28],
      },
      {
        title: `Open loop at ${openLoop.share * 100} % of each round's rate for ${openLoop.seconds} s; times count from when a request was due`,
        rows: [
          ['body', ...answerTimesColumns],
          ...figures.latencies.map((one) => [one.body, ...answerTimesCells(one)]),
        ],
        widths: [14, ...answerTimesWidths],
      },
    ],
    goals: goalsOf(bench.bodies, figures),
    figures,
  }
}

function parts(figures: Readonly<Record<string, number>>): string {
  return Object.entries(figures)
    .map(([name, value]) => `${name} ${value.toFixed(0)}`)
    .join(', ')
}

/** The median of the rounds of each system with each body. */
function summaries(rounds: readonly SaturationFigure[]): SaturationFigure[] {
  const groups = Map.groupBy(rounds, ({ body, subject }) => `${body}/${subject}`)
  return [...groups.values()].flatMap((group) => {
    const [first] = group
    if (first === undefined) return []
    const of = (value: (figure: SaturationFigure) => number) => median(group.map(value)) ?? 0
    const each = (values: (figure: SaturationFigure) => Record<string, number>) =>
      Object.fromEntries(
        Object.keys(values(first)).map((name) => [name, of((one) => values(one)[name] ?? 0)]),
      )
    return {
      ...first,
      requests: of((one) => one.requests),
      requestsPerSecond: of((one) => one.requestsPerSecond),
      cpuMicrosecondsPerRequest: of((one) => one.cpuMicrosecondsPerRequest),
      cpuByProcess: each((one) => one.cpuByProcess),
      peakMegabytes: each((one) => one.peakMegabytes),
      p50Ms: of((one) => one.p50Ms),
      p99Ms: of((one) => one.p99Ms),
      refused: of((one) => one.refused),
      drainSeconds: of((one) => one.drainSeconds),
    }
  })
}

function goalsOf(bodies: readonly BenchBody[], { rounds, latencies, disk }: Figures): Goal[] {
  const goals: Goal[] = []
  const of = (body: string, subject: string) =>
    rounds.filter((one) => one.body === body && one.subject.includes(subject))
  /** The median of the ratios of each pair: both of a pair ran one after the other. */
  const ratio = (
    body: string,
    peer: string,
    value: (figure: SaturationFigure) => number,
  ): number | undefined => {
    const theirs = of(body, peer)
    return median(
      of(body, 'Sluice').flatMap((our, round) => {
        const their = theirs[round]
        return their === undefined ? [] : [value(our) / value(their)]
      }),
    )
  }
  for (const { name, spans } of bodies) {
    const rate = median(of(name, 'Sluice').map((one) => one.requestsPerSecond)) ?? 0
    const times = timesWanted[name] ?? 1
    for (const [peer, wanted, said] of [
      ['fsync', times, `at least ${times} × the Collector with fsync`],
      ['memory', 1, "faster than the Collector's memory queue"],
    ] as const) {
      const seen = ratio(name, peer, (one) => one.requestsPerSecond)
      goals.push({
        what: `${name}, end to end`,
        wanted: said,
        seen:
          seen === undefined
            ? `${rate.toFixed(0)}/s; no Collector to compare with`
            : `${seen.toFixed(2)} × (${rate.toFixed(0)}/s)`,
        isReached: seen === undefined ? undefined : seen >= wanted,
      })
    }
    const cpu = ratio(name, 'memory', (one) => one.cpuMicrosecondsPerRequest)
    const ours = median(of(name, 'Sluice').map((one) => one.cpuMicrosecondsPerRequest / spans)) ?? 0
    goals.push({
      what: `${name}, CPU time a span over all processes`,
      wanted: "at most half of the Collector's with memory queue",
      seen:
        cpu === undefined
          ? `${ours.toFixed(2)} µs; no Collector to compare with`
          : `${cpu.toFixed(2)} × (${ours.toFixed(2)} µs)`,
      isReached: cpu === undefined ? undefined : cpu <= cpuShareWanted,
    })
  }
  for (const [body, times] of Map.groupBy(latencies, (one) => one.body)) {
    const p99Ms = median(times.map((one) => one.p99Ms)) ?? 0
    const each = times.map((one) => `${one.p99Ms.toFixed(0)} at ${one.perSecond}/s`).join(', ')
    const unsent = times.reduce((sum, one) => sum + one.unsent, 0)
    goals.push({
      what: `${body}, answer p99 at ${openLoop.share * 100} % of the peak`,
      wanted: `under ${p99MsWanted} ms`,
      seen: `${p99Ms.toFixed(1)} ms (${each})${unsent === 0 ? '' : `, ${unsent} never sent`}`,
      isReached: p99Ms < p99MsWanted && unsent === 0,
    })
  }
  const ours = rounds.filter(({ subject }) => subject === 'Sluice')
  const peak = Math.max(
    ...ours.flatMap(({ peakMegabytes: { ingress = 0, worker = 0 } }) => [ingress, worker]),
  )
  goals.push({
    what: 'resident memory of each Node process at the peak',
    wanted: `under ${megabytesWanted} MB`,
    seen: `at most ${peak.toFixed(0)} MB`,
    isReached: peak < megabytesWanted,
  })
  for (const { name } of bodies) {
    const seen = disk.filter(({ body }) => body === name)
    const wal = median(seen.map((one) => one.walBytesPerByte)) ?? 0
    const data = median(seen.map((one) => one.dataBytesPerByte)) ?? 0
    goals.push({
      what: `${name}, bytes that PostgreSQL writes per payload byte`,
      wanted: 'measured',
      seen: `${(wal + data).toFixed(1)}: ${wal.toFixed(1)} of the log, ${data.toFixed(1)} of tables and indexes`,
      isReached: undefined,
    })
  }
  return goals
}
