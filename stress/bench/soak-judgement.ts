import { LatencyHistogram } from '../latency-histogram.ts'
import type { LoadResult } from '../load.ts'

/** What is looked at every so often while the load goes on. */
export interface SoakSample {
  /** Since the load began. */
  seconds: number
  residentBytes: Record<string, number>
  /** The same without memory that the processes of a server have in common. */
  ownBytes: Record<string, number>
  /** Used so far, over all processes. */
  cpuSeconds: number
  pendingRows: number
  queueRows: number
  deadRows: number
  /** Written since the server was made. */
  walBytes: number
  /** Of each table of the queue, of what it keeps out of line and of each index, by name. */
  sizes: Record<string, number>
}

/** The answers to what was due within a while. */
export interface SoakWindow {
  /** When it ended, since the load began. */
  seconds: number
  requests: number
  /** Answered with something else than 200, or not at all. */
  refused: number
  p50Ms: number
  p99Ms: number
}

export interface SoakPoint {
  seconds: number
  value: number
}

/** Something that is to stay as it is, and by how much it may grow from the first tenth to the last all the same. */
export interface SoakMeasure {
  what: string
  unit: string
  points: readonly SoakPoint[]
  /** What stands for a tenth: the median, or the most where something comes and goes. */
  of: 'median' | 'most'
  /** `share` of the first tenth and `floor` on top; undefined where nothing is held against it. */
  tolerance: { share: number; floor: number } | undefined
}

export interface SoakVerdict {
  what: string
  unit: string
  first: number
  last: number
  slopePerHour: number
  lastMax: number | undefined
  /** Undefined where there is nothing to hold it against. */
  isFlat: boolean | undefined
}

/**
 * Answer times by window. They count from when a request was due (its number over the rate), so that a request that
 * had to wait for a connection is as late as its sender saw it.
 */
export function windowsOf(
  result: Pick<LoadResult, 'statuses' | 'sentMs' | 'tookMs'>,
  { perSecond, windowSeconds }: { perSecond: number; windowSeconds: number },
): SoakWindow[] {
  const { statuses, sentMs, tookMs } = result
  const perWindow = perSecond * windowSeconds
  const windows: SoakWindow[] = []
  // The last window counts when it is full.
  for (let place = 1; Math.floor(place * perWindow) <= statuses.length; place++) {
    const [from, to] = [Math.floor((place - 1) * perWindow), Math.floor(place * perWindow)]
    const latencies = new LatencyHistogram()
    let refused = 0
    for (let number = from; number < to; number++) {
      if (statuses[number] !== 200) refused++
      const dueMs = (number / perSecond) * 1000
      latencies.record(((sentMs[number] ?? 0) + (tookMs[number] ?? 0) - dueMs) * 1000)
    }
    windows.push({
      seconds: place * windowSeconds,
      requests: to - from,
      refused,
      p50Ms: latencies.quantile(0.5) / 1000,
      p99Ms: latencies.quantile(0.99) / 1000,
    })
  }
  return windows
}

/** By how much the line that fits best rises in an hour; 0 of fewer than two points. */
export function slopePerHour(points: readonly SoakPoint[]): number {
  const mean = (of: (point: SoakPoint) => number) =>
    points.reduce((sum, point) => sum + of(point), 0) / Math.max(1, points.length)
  const middle = { seconds: mean(({ seconds }) => seconds), value: mean(({ value }) => value) }
  let [along, spread] = [0, 0]
  for (const { seconds, value } of points) {
    along += (seconds - middle.seconds) * (value - middle.value)
    spread += (seconds - middle.seconds) ** 2
  }
  return spread === 0 ? 0 : (along / spread) * 3600
}

/** Holds the last tenth of the time against the first. */
export function judgeMeasure({ what, unit, points, of, tolerance }: SoakMeasure): SoakVerdict {
  const tenth = Math.max(1, Math.floor(points.length / 10))
  const stand = of === 'median' ? medianValue : mostValue
  const [first, last] = [stand(points.slice(0, tenth)), stand(points.slice(-tenth))]
  const lastMax = tolerance && first * (1 + tolerance.share) + tolerance.floor
  return {
    what,
    unit,
    first,
    last,
    slopePerHour: slopePerHour(points),
    lastMax,
    isFlat: lastMax === undefined ? undefined : last <= lastMax,
  }
}

function medianValue(points: readonly SoakPoint[]): number {
  const sorted = points.map(({ value }) => value).sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? 0
}

function mostValue(points: readonly SoakPoint[]): number {
  return Math.max(0, ...points.map(({ value }) => value))
}

/** What a soak asks of its samples and answers. */
export function soakMeasures(
  samples: readonly SoakSample[],
  windows: readonly SoakWindow[],
  perSecond: number,
): SoakMeasure[] {
  // The first sample is of before the load.
  const under = samples.slice(1)
  const points = (value: (sample: SoakSample) => number) =>
    under.map((sample) => ({ seconds: sample.seconds, value: value(sample) }))
  /** Of each request between one sample and the next. */
  const perRequest = (value: (sample: SoakSample) => number) =>
    under.map((sample, place) => {
      const before = samples[place] ?? sample
      const requests = Math.max(1, (sample.seconds - before.seconds) * perSecond)
      return { seconds: sample.seconds, value: (value(sample) - value(before)) / requests }
    })
  const answers = (value: (window: SoakWindow) => number) =>
    windows.map((window) => ({ seconds: window.seconds, value: value(window) }))
  const names = Object.keys(samples.at(-1)?.sizes ?? {}).sort()
  const memory = (name: string, tolerance: SoakMeasure['tolerance']): SoakMeasure => ({
    what: `${name}, memory of its own`,
    unit: 'MB',
    points: points(({ ownBytes }) => (ownBytes[name] ?? 0) / 1e6),
    of: 'median',
    tolerance,
  })
  return [
    memory('ingress', { share: 0.1, floor: 10 }),
    memory('worker', { share: 0.1, floor: 10 }),
    memory('PostgreSQL', { share: 0.1, floor: 20 }),
    // Not ours, and it keeps what it has read of a bucket that grows.
    memory('MinIO', undefined),
    {
      what: 'answer p50',
      unit: 'ms',
      points: answers(({ p50Ms }) => p50Ms),
      of: 'median',
      tolerance: { share: 0.2, floor: 1 },
    },
    {
      what: 'answer p99',
      unit: 'ms',
      points: answers(({ p99Ms }) => p99Ms),
      of: 'median',
      tolerance: { share: 0.5, floor: 10 },
    },
    {
      what: 'CPU time a request, all processes',
      unit: 'µs',
      points: perRequest(({ cpuSeconds }) => cpuSeconds * 1e6),
      of: 'median',
      tolerance: { share: 0.15, floor: 0 },
    },
    {
      what: 'rows that wait',
      unit: 'rows',
      points: points(({ pendingRows }) => pendingRows),
      of: 'median',
      // What comes within a second.
      tolerance: { share: 0.5, floor: perSecond },
    },
    {
      what: 'dead rows',
      unit: 'rows',
      points: points(({ deadRows }) => deadRows),
      of: 'most',
      tolerance: { share: 0.5, floor: 10_000 },
    },
    ...names.map(
      (name): SoakMeasure => ({
        what: name,
        unit: 'MB',
        points: points(({ sizes }) => (sizes[name] ?? 0) / 1e6),
        of: 'most',
        tolerance: { share: 0.25, floor: 1 },
      }),
    ),
    {
      what: 'log of PostgreSQL, a request',
      unit: 'bytes',
      points: perRequest(({ walBytes }) => walBytes),
      of: 'median',
      // After a checkpoint whole pages are written, and checkpoints come when they come.
      tolerance: undefined,
    },
  ]
}
