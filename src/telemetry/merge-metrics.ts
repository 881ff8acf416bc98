import { AggregatorRegistry, type Registry } from 'prom-client'
import { type MetricDeclaration, metricDeclarations } from './metrics.ts'

/** What a process has counted, as its registry gives it. */
export type Counts = Awaited<ReturnType<Registry['getMetricsAsJSON']>>

const declarations = new Map(
  Object.values<MetricDeclaration>(metricDeclarations).map((declaration) => [declaration.name, declaration]),
)
const declarationOf = (name: string) => declarations.get(name as MetricDeclaration['name'])

/**
 * Our metrics as several processes show them together. Those of Node.js, whose label `process` tells them apart, stand side by
 * side.
 */
export function mergeMetrics(counts: readonly Counts[]): Registry {
  const merged = counts.map((metrics) =>
    metrics.map((metric) => (declarationOf(metric.name) ? metric : { ...metric, aggregator: 'first' })),
  )
  return AggregatorRegistry.aggregate(merged)
}

/** What stays of the counts of a process that has ended: a total must not fall, while what it held is gone. */
export function totalsOf(counts: Counts): Counts {
  return counts.filter(({ name }) => (declarationOf(name)?.kind ?? 'gauge') !== 'gauge')
}

/** The sums of totals. */
export async function sumTotals(totals: readonly Counts[]): Promise<Counts> {
  return await mergeMetrics(totals).getMetricsAsJSON()
}
