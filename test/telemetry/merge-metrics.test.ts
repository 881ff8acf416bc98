import { expect, test } from 'vitest'
import { mergeMetrics, sumTotals, totalsOf } from '../../src/telemetry/merge-metrics.ts'
import { collectProcessMetrics, createMetrics } from '../../src/telemetry/metrics.ts'

/** The metrics of a supervisor and of two processes that take OTLP. */
function three() {
  const make = () => createMetrics({ isOneOfSeveral: true })
  return { supervisor: make(), one: make(), other: make() }
}

async function seriesOf(name: string, all: ReturnType<typeof three>): Promise<string[]> {
  const counts = await Promise.all(Object.values(all).map(({ registry }) => registry.getMetricsAsJSON()))
  const text = await mergeMetrics(counts).getSingleMetricAsString(name)
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
}

test('totals and histograms are summed, series by series', async () => {
  const all = three()
  const traces = { signal: 'traces', transport: 'http', outcome: 'accepted' }
  all.one.requests.labels(traces).inc(2)
  all.other.requests.labels(traces).inc(3)
  all.other.requests.labels({ ...traces, outcome: 'malformed' }).inc()
  expect(await seriesOf('sluice_requests_total', all)).toEqual([
    'sluice_requests_total{signal="traces",transport="http",outcome="accepted"} 5',
    'sluice_requests_total{signal="traces",transport="http",outcome="malformed"} 1',
  ])
  all.one.groupRows.observe(1)
  all.other.groupRows.observe(200)
  const rows = await seriesOf('sluice_group_rows', all)
  expect(rows).toEqual(
    expect.arrayContaining([
      'sluice_group_rows_bucket{le="128"} 1',
      'sluice_group_rows_bucket{le="256"} 2',
      'sluice_group_rows_sum 201',
      'sluice_group_rows_count 2',
    ]),
  )
})

test('what processes share out is summed; what each sees of the whole is not', async () => {
  const all = three()
  all.one.watch('inflightBytes', () => 3)
  all.other.watch('inflightBytes', () => 4)
  all.one.backlogRows.set(70)
  all.other.backlogRows.set(80)
  expect(await seriesOf('sluice_inflight_bytes', all)).toEqual(['sluice_inflight_bytes 7'])
  expect(await seriesOf('sluice_backlog_rows', all)).toEqual(['sluice_backlog_rows 80'])
})

test('the database is up when it is for every process that has used it', async () => {
  const all = three()
  expect(await seriesOf('sluice_database_up', all)).toEqual([])
  all.one.databaseUp.set(1)
  expect(await seriesOf('sluice_database_up', all)).toEqual(['sluice_database_up 1'])
  all.other.databaseUp.set(0)
  expect(await seriesOf('sluice_database_up', all)).toEqual(['sluice_database_up 0'])
})

test('the metrics of Node.js stand side by side, also those that its library would leave out', async () => {
  const all = three()
  for (const [process, metrics] of Object.entries(all)) collectProcessMetrics(metrics, process)
  for (const name of ['process_resident_memory_bytes', 'process_start_time_seconds']) {
    expect((await seriesOf(name, all)).map((line) => line.replace(/ .*/, ''))).toEqual(
      ['supervisor', 'one', 'other'].map((process) => `${name}{process="${process}"}`),
    )
  }
})

test('of a process that has ended its totals stay, and what it held is gone', async () => {
  const metrics = createMetrics({ isOneOfSeveral: true })
  metrics.rateLimited.inc(5)
  metrics.groupRows.observe(1)
  metrics.inflightBytes.set(100)
  const totals = totalsOf(await metrics.registry.getMetricsAsJSON())
  const twice = await sumTotals([totals, totals])
  const text = await mergeMetrics([twice]).metrics()
  expect(text).toContain('sluice_rate_limited_total 10')
  expect(text).toContain('sluice_group_rows_count 2')
  expect(text).not.toContain('sluice_inflight_bytes')
})
