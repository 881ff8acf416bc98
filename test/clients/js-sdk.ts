import { type DiagLogger, DiagLogLevel, diag } from '@opentelemetry/api'
import { type ExportResult, ExportResultCode } from '@opentelemetry/core'
import { OTLPLogExporter as GrpcLogs } from '@opentelemetry/exporter-logs-otlp-grpc'
import { OTLPLogExporter as JsonLogs } from '@opentelemetry/exporter-logs-otlp-http'
import { OTLPLogExporter as ProtobufLogs } from '@opentelemetry/exporter-logs-otlp-proto'
import { OTLPMetricExporter as GrpcMetrics } from '@opentelemetry/exporter-metrics-otlp-grpc'
import { OTLPMetricExporter as JsonMetrics } from '@opentelemetry/exporter-metrics-otlp-http'
import { OTLPMetricExporter as ProtobufMetrics } from '@opentelemetry/exporter-metrics-otlp-proto'
import { OTLPTraceExporter as GrpcTraces } from '@opentelemetry/exporter-trace-otlp-grpc'
import { OTLPTraceExporter as JsonTraces } from '@opentelemetry/exporter-trace-otlp-http'
import { OTLPTraceExporter as ProtobufTraces } from '@opentelemetry/exporter-trace-otlp-proto'
import { resourceFromAttributes } from '@opentelemetry/resources'
import {
  BatchLogRecordProcessor,
  LoggerProvider,
  type LogRecordExporter,
  SimpleLogRecordProcessor,
} from '@opentelemetry/sdk-logs'
import {
  MeterProvider,
  PeriodicExportingMetricReader,
  type PushMetricExporter,
  type ViewOptions,
} from '@opentelemetry/sdk-metrics'
import {
  BatchSpanProcessor,
  SimpleSpanProcessor,
  type SpanExporter,
  TracerProvider,
} from '@opentelemetry/sdk-trace'

/** How the SDK for JavaScript sends: OTLP/HTTP with protobuf or JSON, or OTLP/gRPC. */
export type JsTransport = 'protobuf' | 'json' | 'grpc'
export const jsTransports: readonly JsTransport[] = ['protobuf', 'json', 'grpc']

/** Where a client sends. */
export interface Destination {
  /** `http://host:port` of OTLP/HTTP. */
  url: string
  /** `host:port` of OTLP/gRPC. */
  grpcTarget: string
}

export interface JsSdkOptions {
  transport: JsTransport
  to: Destination
  service: string
  /** The exporters' own deadline; theirs is 10 s. */
  timeoutMs?: number | undefined
  /** One export a span and a log record, as soon as it is there, instead of one for all. */
  oneByOne?: boolean
  views?: ViewOptions[]
}

/** The SDK for JavaScript as a user sets it up, with what its exporters answered. */
export class JsSdk {
  readonly traces: TracerProvider
  readonly metrics: MeterProvider
  readonly logs: LoggerProvider
  /** How the exports ended, in the order in which they did. */
  readonly results: ExportResult[] = []

  constructor({ transport, to, service, timeoutMs, oneByOne = false, views = [] }: JsSdkOptions) {
    const resource = resourceFromAttributes({ 'service.name': service })
    const exporters = exportersFor(transport, to, timeoutMs)
    for (const exporter of Object.values(exporters)) this.#watch(exporter)
    const { spans: exporter } = exporters
    this.traces = new TracerProvider({
      resource,
      spanProcessors: [
        oneByOne ? new SimpleSpanProcessor({ exporter }) : new BatchSpanProcessor({ exporter }),
      ],
    })
    const reader = new PeriodicExportingMetricReader({
      exporter: exporters.metrics,
      exportIntervalMillis: 3_600_000,
      exportTimeoutMillis: 60_000,
    })
    this.metrics = new MeterProvider({ resource, readers: [reader], views })
    this.logs = new LoggerProvider({
      resource,
      processors: [
        oneByOne
          ? new SimpleLogRecordProcessor({ exporter: exporters.logs })
          : new BatchLogRecordProcessor({ exporter: exporters.logs }),
      ],
    })
  }

  /** How many exports ended well, and the errors of the others. */
  get outcome(): { succeeded: number; errors: string[] } {
    const failed = this.results.filter(({ code }) => code !== ExportResultCode.SUCCESS)
    return {
      succeeded: this.results.length - failed.length,
      errors: failed.map(({ error }) => error?.message ?? 'no reason given'),
    }
  }

  /** Sends what is waiting and ends the exporters. */
  async shutdown(): Promise<void> {
    await Promise.all([this.traces.shutdown(), this.metrics.shutdown(), this.logs.shutdown()])
  }

  #watch(exporter: { export(items: never, done: (result: ExportResult) => void): void }): void {
    const send = exporter.export.bind(exporter)
    exporter.export = (items, done) =>
      send(items, (result) => {
        this.results.push(result)
        done(result)
      })
  }
}

interface Exporters {
  spans: SpanExporter
  metrics: PushMetricExporter
  logs: LogRecordExporter
}

function exportersFor(transport: JsTransport, to: Destination, timeoutMs: number | undefined): Exporters {
  const deadline = timeoutMs === undefined ? {} : { timeoutMillis: timeoutMs }
  if (transport === 'grpc') {
    const options = { url: `http://${to.grpcTarget}`, ...deadline }
    return { spans: new GrpcTraces(options), metrics: new GrpcMetrics(options), logs: new GrpcLogs(options) }
  }
  const [spans, metrics, logs] = ['traces', 'metrics', 'logs'].map((signal) => ({
    url: `${to.url}/v1/${signal}`,
    ...deadline,
  }))
  return transport === 'json'
    ? { spans: new JsonTraces(spans), metrics: new JsonMetrics(metrics), logs: new JsonLogs(logs) }
    : {
        spans: new ProtobufTraces(spans),
        metrics: new ProtobufMetrics(metrics),
        logs: new ProtobufLogs(logs),
      }
}

/** Collects what the SDK logs about itself from `WARN` up, until `stop` is called. */
export function watchJsLog(): { lines: string[]; stop(): void } {
  const lines: string[] = []
  const keep = (...words: unknown[]) => {
    lines.push(words.map((word) => (word instanceof Error ? word.message : String(word))).join(' '))
  }
  const drop = () => undefined
  const logger: DiagLogger = { error: keep, warn: keep, info: drop, debug: drop, verbose: drop }
  diag.setLogger(logger, { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true })
  return { lines, stop: () => diag.disable() }
}
