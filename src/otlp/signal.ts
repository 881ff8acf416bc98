/**
 * The kinds of telemetry that OTLP carries: by the number they have in `ingestion_queue.signal`, with their path over HTTP
 * and their service over gRPC.
 */
export const signals = {
  traces: {
    number: 1,
    path: '/v1/traces',
    service: 'opentelemetry.proto.collector.trace.v1.TraceService',
    rejectedField: 'rejectedSpans',
    items: 'spans',
  },
  metrics: {
    number: 2,
    path: '/v1/metrics',
    service: 'opentelemetry.proto.collector.metrics.v1.MetricsService',
    rejectedField: 'rejectedDataPoints',
    items: 'data points',
  },
  logs: {
    number: 3,
    path: '/v1/logs',
    service: 'opentelemetry.proto.collector.logs.v1.LogsService',
    rejectedField: 'rejectedLogRecords',
    items: 'log records',
  },
  profiles: {
    number: 4,
    path: '/v1development/profiles',
    service: 'opentelemetry.proto.collector.profiles.v1development.ProfilesService',
    rejectedField: 'rejectedProfiles',
    items: 'profiles',
  },
} as const

export type Signal = keyof typeof signals
export type SignalNumber = (typeof signals)[Signal]['number']

const byNumber: Record<SignalNumber, Signal> = { 1: 'traces', 2: 'metrics', 3: 'logs', 4: 'profiles' }

export function signalOfNumber(number: number): Signal {
  const signal = byNumber[number as SignalNumber]
  if (signal === undefined) throw new RangeError(`${number} is not the number of a signal (1 to 4)`)
  return signal
}

/** How a payload is compressed at rest: `encoding` 0 and 1 of `ingestion_queue`. */
export type Encoding = 'identity' | 'gzip'
export const encodingNumbers: Record<Encoding, 0 | 1> = { identity: 0, gzip: 1 }

export function encodingOfNumber(number: number): Encoding {
  if (number !== 0 && number !== 1)
    throw new RangeError(`${number} is not the number of an encoding (0 or 1)`)
  return number === 0 ? 'identity' : 'gzip'
}
