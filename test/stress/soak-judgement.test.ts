import { describe, expect, test } from 'vitest'
import {
  judgeMeasure,
  type SoakMeasure,
  type SoakSample,
  slopePerHour,
  soakMeasures,
  windowsOf,
} from '../../stress/bench/soak-judgement.ts'

const line = (values: readonly number[]) => values.map((value, place) => ({ seconds: place * 10, value }))

describe('windowsOf', () => {
  test('counts an answer from when its request was due, in the window in which it was due', () => {
    // Two a second; request 3, due at 1.5 s, had to wait for 400 ms and took 100 ms.
    const windows = windowsOf(
      {
        statuses: Uint16Array.of(200, 200, 200, 200, 200, 503, 200),
        sentMs: Float32Array.of(0, 500, 1000, 1900, 2000, 2500, 3000),
        tookMs: Float32Array.of(10, 10, 10, 100, 10, 10, 10),
      },
      { perSecond: 2, windowSeconds: 1 },
    )
    expect(windows.map(({ seconds, requests, refused }) => [seconds, requests, refused])).toEqual([
      [1, 2, 0],
      [2, 2, 0],
      [3, 2, 1],
    ])
    expect(windows.map(({ p99Ms }) => Math.round(p99Ms / 5) * 5)).toEqual([10, 500, 10])
    expect(windows.map(({ p50Ms }) => Math.round(p50Ms / 5) * 5)).toEqual([10, 10, 10])
  })

  test('leaves no request out where a window is no whole number of them', () => {
    const sent = 100
    const windows = windowsOf(
      {
        statuses: new Uint16Array(sent).fill(200),
        sentMs: new Float32Array(sent),
        tookMs: new Float32Array(sent),
      },
      { perSecond: 3.3, windowSeconds: 1 },
    )
    expect(windows.reduce((sum, { requests }) => sum + requests, 0)).toBe(99)
  })
})

describe('slopePerHour', () => {
  test('is what a straight line rises by in an hour', () => {
    expect(slopePerHour(line([5, 6, 7, 8]))).toBeCloseTo(360)
    expect(slopePerHour(line([8, 8, 8]))).toBe(0)
  })
  test('is 0 of what has no length', () => {
    expect(slopePerHour([])).toBe(0)
    expect(slopePerHour(line([5]))).toBe(0)
  })
})

describe('judgeMeasure', () => {
  const measure: Omit<SoakMeasure, 'points'> = {
    what: 'memory',
    unit: 'MB',
    of: 'median',
    tolerance: { share: 0.1, floor: 10 },
  }
  const judge = (values: readonly number[], changes: Partial<SoakMeasure> = {}) =>
    judgeMeasure({ ...measure, ...changes, points: line(values) })
  const from = (first: number, last: number) =>
    Array.from({ length: 30 }, (_, place) => (place < 15 ? first : last))

  test('what stays within its share and its floor is flat', () => {
    expect(judge(from(100, 120))).toMatchObject({ first: 100, last: 120, isFlat: true })
    expect(judge(from(100, 120)).lastMax).toBeCloseTo(120)
    expect(judge(from(100, 50)).isFlat).toBe(true)
  })
  test('what grows beyond is not', () => {
    expect(judge(from(100, 121)).isFlat).toBe(false)
  })
  test('one value far off is no growth, unless the most counts', () => {
    const values = [...from(100, 100).slice(1), 900]
    expect(judge(values).isFlat).toBe(true)
    expect(judge(values, { of: 'most' })).toMatchObject({ last: 900, isFlat: false })
  })
  test('what nothing is held against has no verdict', () => {
    expect(judge(from(1, 9), { tolerance: undefined })).toMatchObject({
      first: 1,
      last: 9,
      isFlat: undefined,
    })
  })
})

test('a soak asks of every table and index, of memory, answers and the cost of a request', () => {
  const sample = (place: number): SoakSample => ({
    seconds: place * 10,
    residentBytes: { ingress: 2e8 },
    ownBytes: { ingress: 1e8, worker: 1e8, PostgreSQL: 1e8, MinIO: 1e8 + place * 1e8 },
    // 300 µs of each of 100 requests a second.
    cpuSeconds: 7 + place * 0.3,
    pendingRows: 10,
    queueRows: 20,
    deadRows: 1000,
    walBytes: place * 4_000_000,
    sizes: { 'table ingestion_queue': 5e7, 'index ingestion_queue_pending': 1e6 + place * 1e6 },
  })
  const samples = Array.from({ length: 31 }, (_, place) => sample(place))
  const windows = samples.map(({ seconds }) => ({ seconds, requests: 1000, refused: 0, p50Ms: 2, p99Ms: 9 }))
  const verdicts = soakMeasures(samples, windows, 100).map(judgeMeasure)
  const grown = verdicts.filter(({ isFlat }) => isFlat === false).map(({ what }) => what)
  expect(grown).toEqual(['index ingestion_queue_pending'])
  const of = (what: string) => verdicts.find((verdict) => verdict.what === what)
  expect(of('CPU time a request, all processes')?.first).toBeCloseTo(300)
  expect(of('log of PostgreSQL, a request')?.last).toBeCloseTo(4000)
  expect(of('table ingestion_queue')).toMatchObject({ first: 50, last: 50, isFlat: true })
  expect(of('MinIO, memory of its own')?.isFlat).toBeUndefined()
})
