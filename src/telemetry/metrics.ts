import { type Aggregator, Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

/** One metric as it is declared: what it is called, what it counts, and what tells its series apart. */
export interface MetricDeclaration {
  readonly kind: 'counter' | 'gauge' | 'histogram'
  /** In full, as it appears at `/metrics`. Units are base units: seconds and bytes. */
  readonly name: `sluice_${string}`
  /** One sentence. */
  readonly about: string
  readonly unit?: 'seconds' | 'bytes'
  readonly labels?: readonly string[]
  /** Upper bounds of a histogram's buckets, in its unit. */
  readonly buckets?: readonly number[]
  /**
   * What several processes that take OTLP show of a gauge together: the sum, unless it is no amount that they share out.
   * With `min`, a process that has never set it has no say.
   */
  readonly together?: 'max' | 'min'
}

const answerSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10] as const
const storeSeconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30] as const

/** Every metric of Sluice, in the direction of the data. `docs/metrics.md` is generated from this table. */
export const metricDeclarations = {
  requests: {
    kind: 'counter',
    name: 'sluice_requests_total',
    about: 'Export requests answered, by what became of them.',
    labels: ['signal', 'transport', 'outcome'],
  },
  requestItems: {
    kind: 'counter',
    name: 'sluice_request_items_total',
    about: 'Spans, data points and log records in the export requests that could be read.',
    labels: ['signal'],
  },
  requestBytes: {
    kind: 'counter',
    name: 'sluice_request_bytes_total',
    about: 'Bytes of request bodies as they came over the wire.',
    unit: 'bytes',
    labels: ['signal'],
  },
  requestDuration: {
    kind: 'histogram',
    name: 'sluice_request_duration_seconds',
    about: 'Time from the head of a request to its answer.',
    unit: 'seconds',
    labels: ['signal', 'transport'],
    buckets: answerSeconds,
  },
  inflightBytes: {
    kind: 'gauge',
    name: 'sluice_inflight_bytes',
    about:
      'Bytes of request bodies in memory between the wire and the commit, bounded by MAX_INFLIGHT_BYTES.',
    unit: 'bytes',
  },
  rateLimited: {
    kind: 'counter',
    name: 'sluice_rate_limited_total',
    about: 'Requests refused because the token bucket was empty.',
  },
  shedRequests: {
    kind: 'counter',
    name: 'sluice_shed_requests_total',
    about:
      'Requests refused under overload, by what is overloaded (cpu, memory, backlog, answer_time) and by their X-Priority.',
    labels: ['reason', 'priority'],
  },
  sheddingIntensity: {
    kind: 'gauge',
    name: 'sluice_load_shedding_ratio',
    about: 'How much of the shares of load shedding is refused: 1 under overload, then falling to 0.',
    together: 'max',
  },
  load: {
    kind: 'gauge',
    name: 'sluice_load_ratio',
    about:
      'What load shedding last read of cpu, memory, backlog and answer_time, as shares of their thresholds: 1 is an overload.',
    labels: ['reason'],
    together: 'max',
  },
  queueSaturated: {
    kind: 'counter',
    name: 'sluice_queue_saturated_total',
    about: 'Requests refused because the queue was full under OVERFLOW_POLICY=reject.',
  },
  droppedRequests: {
    kind: 'counter',
    name: 'sluice_dropped_requests_total',
    about: 'Requests whose data was thrown away by a policy.',
    labels: ['signal', 'reason'],
  },
  droppedItems: {
    kind: 'counter',
    name: 'sluice_dropped_items_total',
    about: 'Spans, data points and log records thrown away by a policy.',
    labels: ['signal', 'reason'],
  },
  repairedStrings: {
    kind: 'counter',
    name: 'sluice_repaired_strings_total',
    about: 'Strings that were not UTF-8 and had bytes replaced by U+FFFD.',
    labels: ['signal'],
  },
  stagedRows: {
    kind: 'counter',
    name: 'sluice_staged_rows_total',
    about: 'Requests committed to ingestion_queue.',
    labels: ['signal'],
  },
  stagedItems: {
    kind: 'counter',
    name: 'sluice_staged_items_total',
    about: 'Spans, data points and log records committed to ingestion_queue.',
    labels: ['signal'],
  },
  stagedBytes: {
    kind: 'counter',
    name: 'sluice_staged_bytes_total',
    about: 'Bytes committed to ingestion_queue, as staged.',
    unit: 'bytes',
    labels: ['signal'],
  },
  groupRows: {
    kind: 'histogram',
    name: 'sluice_group_rows',
    about: 'Requests that shared one staging transaction.',
    buckets: [1, 2, 4, 8, 16, 32, 64, 128, 256],
  },
  groupCommitDuration: {
    kind: 'histogram',
    name: 'sluice_group_commit_duration_seconds',
    about: 'Time of one staging transaction, its fsync included.',
    unit: 'seconds',
    buckets: answerSeconds,
  },
  unknownRows: {
    kind: 'counter',
    name: 'sluice_staging_unknown_rows_total',
    about:
      'Requests answered 503 because their commit was given up half way: each may be in the queue, and its sender repeats it.',
  },
  backlogRows: {
    kind: 'gauge',
    name: 'sluice_backlog_rows',
    about:
      'Requests that wait in the queue, as last counted; the count stops just above STAGING_MAX_BACKLOG.',
    together: 'max',
  },
  backlogBytes: {
    kind: 'gauge',
    name: 'sluice_backlog_bytes',
    about: 'Bytes that wait in the queue, as last counted.',
    unit: 'bytes',
    together: 'max',
  },
  claimedBatches: {
    kind: 'counter',
    name: 'sluice_claimed_batches_total',
    about: 'Batches claimed from the queue for the first time.',
  },
  claimedRows: {
    kind: 'counter',
    name: 'sluice_claimed_rows_total',
    about: 'Requests claimed from the queue for the first time.',
  },
  takeovers: {
    kind: 'counter',
    name: 'sluice_takeovers_total',
    about: 'Batches taken over from a worker that let its lease run out.',
  },
  leaseRenewals: {
    kind: 'counter',
    name: 'sluice_lease_renewals_total',
    about: 'Leases renewed while their batch was buffered or written.',
  },
  bufferRows: {
    kind: 'gauge',
    name: 'sluice_buffer_rows',
    about: 'Claimed requests in memory, bounded by PROCESSING_QUEUE_MAX_DEPTH.',
  },
  bufferBytes: {
    kind: 'gauge',
    name: 'sluice_buffer_bytes',
    about: 'Claimed bytes in memory, bounded by PROCESSING_QUEUE_MAX_BYTES.',
    unit: 'bytes',
  },
  processingPauses: {
    kind: 'counter',
    name: 'sluice_processing_paused_total',
    about: 'Times that polling went to sleep because the buffer was full.',
  },
  processingPaused: {
    kind: 'gauge',
    name: 'sluice_processing_paused',
    about: '1 while polling sleeps because the buffer is full, else 0.',
    together: 'max',
  },
  settledBatches: {
    kind: 'counter',
    name: 'sluice_settled_batches_total',
    about:
      'Batches settled, by outcome (completed, failed, split, released, buried, lost) and the kind of failure behind it (none without one).',
    labels: ['outcome', 'failure'],
  },
  deadLetters: {
    kind: 'counter',
    name: 'sluice_dead_letters_total',
    about: 'Requests moved to dead_letter.',
    labels: ['signal'],
  },
  puts: {
    kind: 'counter',
    name: 'sluice_puts_total',
    about: 'Attempts to put an object, by outcome (stored, or the kind of the failure).',
    labels: ['outcome'],
  },
  putDuration: {
    kind: 'histogram',
    name: 'sluice_put_duration_seconds',
    about: 'Time of one attempt to put an object.',
    unit: 'seconds',
    buckets: storeSeconds,
  },
  settleDuration: {
    kind: 'histogram',
    name: 'sluice_settle_duration_seconds',
    about: 'Time of the statement that makes a batch part of the catalog.',
    unit: 'seconds',
    buckets: answerSeconds,
  },
  storedObjects: {
    kind: 'counter',
    name: 'sluice_stored_objects_total',
    about: 'Objects that became part of the catalog.',
    labels: ['signal'],
  },
  storedRows: {
    kind: 'counter',
    name: 'sluice_stored_rows_total',
    about: 'Requests that became part of the catalog.',
    labels: ['signal'],
  },
  storedItems: {
    kind: 'counter',
    name: 'sluice_stored_items_total',
    about: 'Spans, data points and log records that became part of the catalog.',
    labels: ['signal'],
  },
  storedBytes: {
    kind: 'counter',
    name: 'sluice_stored_bytes_total',
    about: 'Bytes of the objects that became part of the catalog.',
    unit: 'bytes',
    labels: ['signal'],
  },
  sweptObjects: {
    kind: 'counter',
    name: 'sluice_swept_objects_total',
    about: 'Objects deleted because their batch was split, released or buried.',
  },
  databaseUp: {
    kind: 'gauge',
    name: 'sluice_database_up',
    about: '1 when the last use of PostgreSQL succeeded, in each of the PROCESSES, else 0.',
    together: 'min',
  },
  storeUp: {
    kind: 'gauge',
    name: 'sluice_store_up',
    about: '1 when the last use of the object store succeeded, else 0.',
    together: 'max',
  },
  circuitState: {
    kind: 'gauge',
    name: 'sluice_circuit_state',
    about:
      'The circuits before the sinks store and catalog: 0 closed, 1 half open, 2 open, when nothing is claimed.',
    labels: ['sink'],
    together: 'max',
  },
  certificateExpiry: {
    kind: 'gauge',
    name: 'sluice_tls_certificate_expiry_timestamp_seconds',
    unit: 'seconds',
    about: 'When the certificate of the OTLP listeners ends, in seconds since 1970; 0 without TLS.',
    together: 'max',
  },
} as const satisfies Readonly<Record<string, MetricDeclaration>>

type Declarations = typeof metricDeclarations
type LabelOf<D> = D extends { labels: readonly (infer L extends string)[] } ? L : never
type MetricOf<D extends MetricDeclaration> = D['kind'] extends 'counter'
  ? Counter<LabelOf<D>>
  : D['kind'] extends 'gauge'
    ? Gauge<LabelOf<D>>
    : Histogram<LabelOf<D>>
type GaugeName = {
  [N in keyof Declarations]: Declarations[N]['kind'] extends 'gauge' ? N : never
}[keyof Declarations]

/**
 * The metrics by their names in `metricDeclarations`. A part binds its labels once, where it is made
 * (`metrics.requests.labels({ signal, transport, outcome })`), and calls `inc`, `set` or `observe` on what it got:
 * 0.2 to 0.5 µs a counter and 0.7 µs a histogram on Node 24. It is the allocation of the labels that is saved; the
 * time is the same within a tenth.
 */
export type Metrics = { readonly [N in keyof Declarations]: MetricOf<Declarations[N]> } & {
  readonly registry: Registry
  /** Lets a gauge be read from its owner at each scrape instead of being set at each change. */
  watch(gauge: GaugeName, read: () => number): void
}

/**
 * Makes all metrics on a registry of their own, so that two in one process (in tests) do not meet.
 *
 * @param isOneOfSeveral whether they are one part of what several processes show together.
 */
export function createMetrics({ isOneOfSeveral = false } = {}): Metrics {
  const registry = new Registry()
  const readers = new Map<string, () => number>()
  const made: Record<string, Counter | Gauge | Histogram> = {}
  for (const [key, declaration] of Object.entries<MetricDeclaration>(metricDeclarations)) {
    const { name, about: help, labels = [], buckets = [], together } = declaration
    const aggregator: Aggregator = together ?? 'sum'
    const common = { name, help, labelNames: [...labels], registers: [registry], aggregator }
    switch (declaration.kind) {
      case 'counter':
        made[key] = new Counter(common)
        break
      case 'histogram':
        made[key] = new Histogram({ ...common, buckets: [...buckets] })
        break
      case 'gauge': {
        const gauge = new Gauge({
          ...common,
          collect() {
            const read = readers.get(key)
            if (read !== undefined) this.set(read())
          },
        })
        if (isOneOfSeveral && together === 'min') gauge.remove()
        made[key] = gauge
      }
    }
  }
  const watch = (gauge: GaugeName, read: () => number) => {
    readers.set(gauge, read)
  }
  // One metric was made for each declaration, of the class that its kind names.
  return { ...made, registry, watch } as unknown as Metrics
}

/**
 * Adds the process's own metrics under the names that every dashboard for Node knows (`process_…`, `nodejs_…`).
 * They watch the event loop and the garbage collector for as long as the process lives.
 *
 * @param process the label of that name, which tells several processes apart; none when it is left out.
 */
export function collectProcessMetrics(metrics: Metrics, process?: string): void {
  collectDefaultMetrics({ register: metrics.registry, ...(process !== undefined && { labels: { process } }) })
}
