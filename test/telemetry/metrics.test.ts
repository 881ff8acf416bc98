import { expect, test } from 'vitest'
import {
  collectProcessMetrics,
  createMetrics,
  type MetricDeclaration,
  metricDeclarations,
} from '../../src/telemetry/metrics.ts'

const declared = Object.entries<MetricDeclaration>(metricDeclarations)

test('every declared metric is registered once, with its sentence', async () => {
  const registered = await createMetrics().registry.getMetricsAsJSON()
  expect(registered.map(({ name, help }) => [name, help])).toEqual(
    declared.map(([, { name, about }]) => [name, about]),
  )
})

test('names end as their kind and unit demand', () => {
  for (const [, { kind, name, unit }] of declared) {
    const stem = kind === 'counter' ? name.replace(/_total$/, '') : name
    expect(stem === name, name).toBe(kind !== 'counter')
    expect(/_(seconds|bytes)$/.exec(stem)?.[1], name).toBe(unit)
  }
})

test('sentences are sentences', () => {
  for (const [, { name, about }] of declared) expect(about, name).toMatch(/^([A-Z]|1 )[^\n]*\.$/)
})

test('a bound counter counts into its series', async () => {
  const metrics = createMetrics()
  const staged = metrics.requests.labels({ signal: 'traces', transport: 'http', outcome: 'staged' })
  staged.inc()
  staged.inc(2)
  expect(await metrics.registry.getSingleMetricAsString('sluice_requests_total')).toBe(
    [
      '# HELP sluice_requests_total Export requests answered, by what became of them.',
      '# TYPE sluice_requests_total counter',
      'sluice_requests_total{signal="traces",transport="http",outcome="staged"} 3',
    ].join('\n'),
  )
})

test('a watched gauge is read from its owner at each scrape', async () => {
  const metrics = createMetrics()
  let used = 7
  metrics.watch('inflightBytes', () => used)
  const scrape = async () =>
    (await metrics.registry.getSingleMetricAsString('sluice_inflight_bytes')).split('\n').at(-1)
  expect(await scrape()).toBe('sluice_inflight_bytes 7')
  used = 9
  expect(await scrape()).toBe('sluice_inflight_bytes 9')
})

test('two sets of metrics in one process do not meet', async () => {
  const one = createMetrics()
  const other = createMetrics()
  one.rateLimited.inc()
  expect(await other.registry.getSingleMetricAsString('sluice_rate_limited_total')).toContain(
    'sluice_rate_limited_total 0',
  )
})

test('the metrics of the process keep the names that dashboards know', async () => {
  const metrics = createMetrics()
  collectProcessMetrics(metrics)
  const names = metrics.registry.getMetricsAsArray().map(({ name }) => name)
  expect(names).toEqual(expect.arrayContaining(['process_cpu_seconds_total', 'nodejs_eventloop_lag_seconds']))
})
