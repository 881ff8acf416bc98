import protobuf from 'protobufjs'
import { expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { askPythonForStatus } from '../clients/python-sdk.ts'
import {
  beginCall,
  callOnce,
  connectHttp2,
  exportPathOf,
  framed,
  GrpcJsClient,
  type GrpcServeOptions,
  never,
  type Reply,
  type ServedGrpc,
  serveGrpc,
} from './grpc-serve.ts'
import { overloadedBy } from './overload.ts'
import { oneSpan } from './serve.ts'

const messages = protobuf.parse(`
  syntax = "proto3";
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
`).root

function read(type: string, bytes: Buffer): Record<string, unknown> {
  const found = messages.lookupType(type)
  return found.toObject(found.decode(bytes), { longs: Number, defaults: true })
}

/** What the trailers of a refusal say about coming again, as another implementation reads them. */
function retryInfoOf({ headers }: Reply) {
  const [details, alone] = ['grpc-status-details-bin', 'google.rpc.retryinfo-bin'].map((name) => {
    const value = headers[name]
    return typeof value === 'string' ? Buffer.from(value, 'base64') : undefined
  })
  if (details === undefined || alone === undefined) return undefined
  const { details: all, ...status } = read('Status', details)
  const [any, ...others] = all as { typeUrl: string; value: Buffer }[]
  return {
    status,
    typeUrl: any?.typeUrl,
    inDetails: any && read('RetryInfo', any.value),
    alone: read('RetryInfo', alone),
    others,
  }
}

const retried: [string, (ingress: ServedGrpc) => unknown, GrpcServeOptions?][] = [
  ['rate limited', ({ port }) => callOnce(port), { rateLimit: { perSecond: 0.001, burst: 1 } }],
  ['queue full', (ingress) => ingress.decide({ outcome: 'reject' })],
  [
    'database away',
    ({ stager }) => {
      stager.failure = new Failure('outage', 'connection refused')
    },
  ],
  ['overloaded', ({ port }) => callOnce(port), { loadShedding: await overloadedBy('cpu', () => 0) }],
  ['disk nearly full', (ingress) => ingress.refuse('less than 1 GiB is free')],
  ['bytes in flight used up', () => undefined, { inflightBytes: 10 }],
]

test.each(retried)(
  'E2: %s: RetryInfo stands in both trailers, whole seconds from 1 to 5',
  async (_, arrange, options) => {
    for (const random of [0, 0.5, 0.999]) {
      await using ingress = await serveGrpc({ ...options, random: () => random })
      await arrange(ingress)
      const reply = await callOnce(ingress.port)
      const told = retryInfoOf(reply)
      const delay = told?.alone.retryDelay as { seconds: number; nanos: number }
      expect(told).toEqual({
        status: { code: reply.status, message: reply.message },
        typeUrl: 'type.googleapis.com/google.rpc.RetryInfo',
        inDetails: { retryDelay: { seconds: expect.any(Number), nanos: 0 } },
        alone: told?.inDetails,
        others: [],
      })
      expect([1, 2, 3, 4, 5]).toContain(delay.seconds)
    }
  },
)

test('E2: a server that stops, and a sender that is too slow, are worth another try', async () => {
  await using ingress = await serveGrpc({ requestTimeoutMs: 1000 })
  await using session = await connectHttp2(ingress.port)
  const slow = await beginCall(session, { body: Buffer.alloc(0), open: true }).reply
  expect(retryInfoOf(slow)?.status.code).toBe(14)
  const release = ingress.stager.hold()
  const inHand = beginCall(session)
  await ingress.stager.whenAppended(1)
  const stopped = ingress.grpc.stop(never)
  expect(retryInfoOf(await callOnce(ingress.port))?.status.code).toBe(14)
  release()
  await inHand.reply
  await stopped
})

test('E2: what is too large, wrong or unknown carries none', async () => {
  await using ingress = await serveGrpc({ maxBodyBytes: 100 })
  const replies = await Promise.all([
    callOnce(ingress.port, { body: framed(Buffer.alloc(101)) }),
    callOnce(ingress.port, { body: framed(Buffer.from('1234')) }),
    callOnce(ingress.port, { headers: { ':path': '/nope' } }),
    callOnce(ingress.port, { headers: { 'grpc-encoding': 'nope' } }),
  ])
  expect(replies.map((reply) => [reply.status, retryInfoOf(reply), Object.keys(reply.headers)])).toEqual(
    [8, 3, 12, 12].map((status) => [
      status,
      undefined,
      [
        ':status',
        'content-type',
        'grpc-accept-encoding',
        'x-request-id',
        'grpc-status',
        'grpc-message',
        'date',
      ],
    ]),
  )
})

test('E2: clients of grpc-js and Python read the same', async () => {
  await using ingress = await serveGrpc({ rateLimit: { perSecond: 0.001, burst: 1 }, random: () => 0 })
  await callOnce(ingress.port)
  await using client = new GrpcJsClient(ingress.port)
  const { code, details, metadata } = await client.call(exportPathOf('traces'), oneSpan)
  const [packed] = metadata.get('google.rpc.retryinfo-bin')
  const seconds = (read('RetryInfo', packed as Buffer).retryDelay as { seconds: number }).seconds
  expect([code, details]).toEqual([8, 'too many requests a second'])
  expect(await askPythonForStatus(`127.0.0.1:${ingress.port}`, 1)).toEqual({
    code: 'RESOURCE_EXHAUSTED',
    message: details,
    status: { code: 8, message: details, details: [['type.googleapis.com/google.rpc.RetryInfo', seconds]] },
    retryInfoSeconds: seconds,
  })
}, 240_000)
