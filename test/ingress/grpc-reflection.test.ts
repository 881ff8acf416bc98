import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import protobuf from 'protobufjs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { peer } from '../../scripts/peers.ts'
import { describeOtlp } from '../../src/otlp/descriptor.ts'
import type { Signal } from '../../src/otlp/signal.ts'
import { decodeWithPython } from '../support/python.ts'
import { callOnce, exportPathOf, framed, type ServedGrpc, serveGrpc } from './grpc-serve.ts'

const run = promisify(execFile)
const reflectionServices = ['grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection']
const otlpServices = [
  'opentelemetry.proto.collector.logs.v1.LogsService',
  'opentelemetry.proto.collector.metrics.v1.MetricsService',
  'opentelemetry.proto.collector.profiles.v1development.ProfilesService',
  'opentelemetry.proto.collector.trace.v1.TraceService',
]
const services = ['grpc.health.v1.Health', ...reflectionServices, ...otlpServices]

let ingress: ServedGrpc
let grpcurl: string

beforeAll(async () => {
  grpcurl = await peer('grpcurl')
  ingress = await serveGrpc()
}, 300_000)
afterAll(async () => {
  await ingress[Symbol.asyncDispose]()
})

/** What grpcurl prints, which learns everything by reflection. */
async function ask(flags: string[], words: string[]): Promise<string> {
  const { stdout } = await run(grpcurl, ['-plaintext', ...flags, `127.0.0.1:${ingress.port}`, ...words])
  return stdout.trim()
}

describe('grpcurl', () => {
  test('lists every service and its methods', async () => {
    expect((await ask([], ['list'])).split('\n')).toEqual(services)
    expect(await Promise.all(otlpServices.map((service) => ask([], ['list', service])))).toEqual(
      otlpServices.map((service) => `${service}.Export`),
    )
  })

  test('describes every message, enum, service and method of OTLP', async () => {
    const symbols = describeOtlp(['traces', 'metrics', 'logs', 'profiles']).flatMap((file) => file.symbols)
    expect(symbols.length).toBeGreaterThan(60)
    for (let at = 0; at < symbols.length; at += 4) {
      const described = await Promise.all(
        symbols
          .slice(at, at + 4)
          .map(async (symbol) => [symbol, await ask([], ['describe', symbol])] as const),
      )
      for (const [symbol, text] of described) expect(text.split('\n')[0]).toContain(`${symbol} is a`)
    }
  }, 120_000)

  test('describes health and reflection, and a field as its .proto file has it', async () => {
    expect(await ask([], ['describe', 'grpc.health.v1.HealthCheckResponse'])).toContain(
      'SERVICE_UNKNOWN = 3;',
    )
    for (const service of reflectionServices) {
      expect(await ask([], ['describe', service])).toContain(
        'rpc ServerReflectionInfo ( stream .grpc.reflection.',
      )
    }
    const point = await ask([], ['describe', 'opentelemetry.proto.metrics.v1.HistogramDataPoint'])
    expect(point).toContain('optional double sum = 5;')
    expect(point).toContain('repeated fixed64 bucket_counts = 6;')
  })

  test('calls Check, and says of a symbol that is not there that it is not', async () => {
    expect(JSON.parse(await ask([], ['grpc.health.v1.Health/Check']))).toEqual({ status: 'SERVING' })
    await expect(ask([], ['describe', 'nope.Nope'])).rejects.toMatchObject({
      stderr: expect.stringMatching(/Symbol not found|not found/i),
    })
  })

  const traceId = Buffer.alloc(16, 7).toString('base64')
  const spanId = Buffer.alloc(8, 7).toString('base64')
  const attributes = [{ key: 'k', value: { stringValue: 'Grüße 😀' } }]
  const requests: [Signal, object][] = [
    [
      'traces',
      {
        resourceSpans: [
          {
            resource: { attributes },
            scopeSpans: [
              {
                scope: { name: 'scope', version: '1' },
                spans: [
                  {
                    traceId,
                    spanId,
                    name: 'n',
                    kind: 'SPAN_KIND_SERVER',
                    startTimeUnixNano: '1800000000000000001',
                    endTimeUnixNano: '1800000000000000002',
                    events: [{ timeUnixNano: '1800000000000000001', name: 'e' }],
                    links: [{ traceId, spanId, traceState: 'a=b' }],
                    status: { message: 'm', code: 'STATUS_CODE_ERROR' },
                    flags: 257,
                  },
                ],
              },
            ],
          },
        ],
      },
    ],
    [
      'metrics',
      {
        resourceMetrics: [
          {
            scopeMetrics: [
              {
                metrics: [
                  {
                    name: 'h',
                    histogram: {
                      dataPoints: [
                        {
                          count: '3',
                          sum: 0,
                          bucketCounts: ['1', '2'],
                          explicitBounds: [1.5],
                          min: 0,
                          attributes,
                        },
                      ],
                      aggregationTemporality: 'AGGREGATION_TEMPORALITY_DELTA',
                    },
                  },
                  { name: 's', sum: { dataPoints: [{ asInt: '-9223372036854775808' }], isMonotonic: true } },
                ],
              },
            ],
          },
        ],
      },
    ],
    [
      'logs',
      {
        resourceLogs: [
          {
            scopeLogs: [
              {
                logRecords: [
                  {
                    observedTimeUnixNano: '18446744073709551615',
                    severityNumber: 'SEVERITY_NUMBER_WARN',
                    body: { kvlistValue: { values: [{ key: 'a', value: { doubleValue: 0.1 } }] } },
                    attributes,
                    traceId,
                    eventName: 'e',
                  },
                ],
              },
            ],
          },
        ],
      },
    ],
    [
      'profiles',
      {
        resourceProfiles: [
          {
            scopeProfiles: [
              { profiles: [{ profileId: traceId, period: '7', samples: [{ values: ['1'] }] }] },
            ],
          },
        ],
        dictionary: { stringTable: ['', 'cpu'], locationTable: [{ lines: [{ line: '3' }] }] },
      },
    ],
  ]
  test.each(requests)(
    'exports %s from JSON, and what is staged is what was said',
    async (signal, request) => {
      const before = ingress.stager.rows.length
      const method = exportPathOf(signal).slice(1)
      expect(await ask(['-d', JSON.stringify(request)], [method])).toBe('{}')
      const staged = ingress.stager.rows.slice(before)
      expect(staged.map((row) => [row.signal, row.encoding, row.items])).toEqual([
        [signal, 'identity', signal === 'metrics' ? 2 : 1],
      ])
      const [decoded] = await decodeWithPython(
        staged.map(({ payload }) => ({ signal, encoding: 'identity', body: payload })),
      )
      expect(decoded).toEqual(request)
    },
    240_000,
  )
})

describe('the two versions', () => {
  const messages = protobuf.parse(`
    syntax = "proto3";
    message Request {
      string host = 1;
      oneof message_request {
        string file_by_filename = 3; string file_containing_symbol = 4;
        string all_extension_numbers_of_type = 6; string list_services = 7;
      }
    }
    message Response {
      Request original_request = 2;
      oneof message_response {
        Files file_descriptor_response = 4; Services list_services_response = 6; Error error_response = 7;
      }
    }
    message Files { repeated bytes file_descriptor_proto = 1; }
    message Services { repeated Service service = 1; }
    message Service { string name = 1; }
    message Error { int32 error_code = 1; string error_message = 2; }
  `).root
  const [requestType, responseType] = [messages.lookupType('Request'), messages.lookupType('Response')]

  /** All questions in one call of one version, and the answers to them. */
  async function answersOf(version: string, questions: object[]): Promise<Record<string, unknown>[]> {
    const body = Buffer.concat(
      questions.map((question) =>
        framed(Buffer.from(requestType.encode(requestType.create(question)).finish())),
      ),
    )
    const headers = { ':path': `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo` }
    const reply = await callOnce(ingress.port, { headers, body })
    expect(reply.status).toBe(0)
    const answers: Record<string, unknown>[] = []
    for (let at = 0; at < reply.body.length; ) {
      const end = at + 5 + reply.body.readUInt32BE(at + 1)
      answers.push(responseType.toObject(responseType.decode(reply.body.subarray(at + 5, end))))
      at = end
    }
    return answers
  }

  test('answer the same, one answer to each question, in order, with the question in it', async () => {
    const questions = [
      { host: 'h', listServices: '*' },
      { fileContainingSymbol: 'opentelemetry.proto.trace.v1.Span.Event' },
      { fileContainingSymbol: `${otlpServices[0]}.Export` },
      { fileByFilename: 'opentelemetry/proto/common/v1/common.proto' },
      { fileByFilename: 'grpc/health/v1/health.proto' },
      { fileContainingSymbol: 'nope' },
      { fileByFilename: 'nope.proto' },
      { allExtensionNumbersOfType: 'opentelemetry.proto.trace.v1.Span' },
    ]
    const answers = await answersOf('v1', questions)
    expect(await answersOf('v1alpha', questions)).toEqual(answers)
    expect(answers.map(({ originalRequest }) => originalRequest)).toEqual(questions)
    expect(answers[0]?.listServicesResponse).toEqual({ service: services.map((name) => ({ name })) })
    const files = answers.map(({ fileDescriptorResponse: files }) =>
      files === undefined ? 0 : (files as { fileDescriptorProto: unknown[] }).fileDescriptorProto.length,
    )
    // Each with all that it builds on: common, resource and trace; those of logs and their service; itself.
    expect(files).toEqual([0, 3, 4, 1, 1, 0, 0, 0])
    expect(answers.slice(5).map(({ errorResponse }) => errorResponse)).toEqual([
      { errorCode: 5, errorMessage: 'nothing is known here of "nope"' },
      { errorCode: 5, errorMessage: 'nothing is known here of "nope.proto"' },
      { errorCode: 5, errorMessage: 'nothing is known here of "extensions"' },
    ])
  })
})
