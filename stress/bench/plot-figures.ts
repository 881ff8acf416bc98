import { z } from 'zod'
import { median } from './bench.ts'
import type { Plot, PlotLine } from './draw.ts'

const byName = z.record(z.string(), z.number())

/** What is drawn of the figures of the bench and of the soak, by the names of their parts. */
const figuresSchema = z.object({
  rates: z
    .object({ rounds: z.array(z.object({ body: z.string(), subject: z.string(), cpuByProcess: byName })) })
    .optional(),
  backlog: z
    .array(z.object({ rows: z.number(), claimMicroseconds: z.number(), settleMicroseconds: z.number() }))
    .optional(),
  ladder: z
    .object({
      body: z.string(),
      peak: z.number(),
      steps: z.array(z.object({ perSecond: z.number(), p50Ms: z.number(), p99Ms: z.number() })),
    })
    .optional(),
  soak: z
    .object({
      body: z.string(),
      perSecond: z.number(),
      samples: z.array(z.object({ seconds: z.number(), residentBytes: byName, sizes: byName })),
      windows: z.array(z.object({ seconds: z.number(), p50Ms: z.number(), p99Ms: z.number() })),
    })
    .optional(),
})

export type Figures = z.infer<typeof figuresSchema>

/** @throws SyntaxError of what is no JSON, ZodError of what holds no figures. */
export function readFigures(text: string): Figures {
  return z.object({ figures: figuresSchema }).parse(JSON.parse(text)).figures
}

/** The plots that the figures suffice for, with the names of their files. */
export function plotsOf({ rates, backlog, ladder, soak }: Figures): { name: string; plot: Plot }[] {
  return [
    ...(backlog === undefined ? [] : [{ name: 'backlog', plot: backlogPlot(backlog) }]),
    ...(ladder === undefined ? [] : [{ name: 'latency', plot: latencyPlot(ladder) }]),
    ...(rates === undefined ? [] : [{ name: 'cpu', plot: cpuPlot(rates) }]),
    ...(soak === undefined
      ? []
      : [
          { name: 'soak-memory', plot: soakMemoryPlot(soak) },
          { name: 'soak-latency', plot: soakLatencyPlot(soak) },
          { name: 'soak-tables', plot: soakTablesPlot(soak) },
        ]),
  ]
}

function backlogPlot(backlog: NonNullable<Figures['backlog']>): Plot {
  const line = (name: string, key: 'claimMicroseconds' | 'settleMicroseconds'): PlotLine => ({
    name,
    points: backlog.map((one) => [one.rows, one[key]]),
  })
  return {
    kind: 'lines',
    title: 'What a claim and a settle cost, by how many rows wait',
    x: { name: 'rows waiting', scale: 'log' },
    y: { name: 'µs a row', scale: 'linear' },
    lines: [line('claim', 'claimMicroseconds'), line('settle', 'settleMicroseconds')],
    hasLabels: true,
  }
}

function latencyPlot({ body, peak, steps }: NonNullable<Figures['ladder']>): Plot {
  return {
    kind: 'lines',
    title: `Answer times of ${body} by rate, open loop; the peak is ${peak.toFixed(0)}/s`,
    x: { name: 'requests/s', scale: 'linear' },
    y: { name: 'ms from when the request was due', scale: 'log' },
    lines: [
      { name: 'p50', points: steps.map((one) => [one.perSecond, one.p50Ms]) },
      { name: 'p99', points: steps.map((one) => [one.perSecond, one.p99Ms]) },
    ],
    hasLabels: true,
  }
}

/** A bar for each body and each system, of the medians of its rounds. */
function cpuPlot({ rounds }: NonNullable<Figures['rates']>): Plot {
  const groups = [...Map.groupBy(rounds, ({ body, subject }) => `${body}\n${subject}`)]
  const processes = [...new Set(rounds.flatMap(({ cpuByProcess }) => Object.keys(cpuByProcess)))]
  return {
    kind: 'bars',
    title: 'CPU time a request at saturation, by process',
    valueName: 'µs a request',
    categories: groups.map(([name]) => name),
    parts: processes.map((name) => ({
      name,
      values: groups.map(
        ([, group]) => median(group.map(({ cpuByProcess }) => cpuByProcess[name] ?? 0)) ?? 0,
      ),
    })),
  }
}

type Soak = NonNullable<Figures['soak']>

const soakTitle = (what: string, { body, perSecond }: Soak) =>
  `${what} over time: ${body} at ${perSecond} requests/s`
const minutes = { name: 'minutes', scale: 'linear' } as const

function soakMemoryPlot(soak: Soak): Plot {
  const names = Object.keys(soak.samples[0]?.residentBytes ?? {})
  return {
    kind: 'lines',
    title: soakTitle('Resident memory', soak),
    x: minutes,
    y: { name: 'MB', scale: 'linear' },
    lines: names.map((name) => ({
      name,
      points: soak.samples.map(({ seconds, residentBytes }) => [
        seconds / 60,
        (residentBytes[name] ?? 0) / 1e6,
      ]),
    })),
    hasLabels: false,
  }
}

function soakLatencyPlot(soak: Soak): Plot {
  return {
    kind: 'lines',
    title: soakTitle('Answer times', soak),
    x: minutes,
    y: { name: 'ms from when the request was due', scale: 'log' },
    lines: [
      { name: 'p50', points: soak.windows.map(({ seconds, p50Ms }) => [seconds / 60, p50Ms]) },
      { name: 'p99', points: soak.windows.map(({ seconds, p99Ms }) => [seconds / 60, p99Ms]) },
    ],
    hasLabels: false,
  }
}

/** A line for each table and one for its indexes together: what is to be seen is whether they rise. */
function soakTablesPlot(soak: Soak): Plot {
  const groups = new Map([
    ['ingestion_queue', /^table ingestion_queue/],
    ['its indexes', /^index ingestion_queue/],
    ['ingestion_batch', /^table ingestion_batch/],
    ['indexes of ingestion_batch', /^index ingestion_batch/],
  ])
  const sum = (sizes: Record<string, number>, names: RegExp) =>
    Object.entries(sizes).reduce((total, [name, bytes]) => total + (names.test(name) ? bytes : 0), 0)
  return {
    kind: 'lines',
    title: soakTitle('Sizes of the tables of the queue', soak),
    x: minutes,
    y: { name: 'MB', scale: 'log' },
    lines: [...groups].map(([name, names]) => ({
      name,
      points: soak.samples.map(({ seconds, sizes }) => [seconds / 60, sum(sizes, names) / 1e6]),
    })),
    hasLabels: false,
  }
}
