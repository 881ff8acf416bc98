import { once } from 'node:events'
import type { ServerHttp2Stream } from 'node:http2'
import { describeFile, type FileDescriptor } from '../otlp/descriptor.ts'
import { linkMessages } from '../otlp/schema.ts'
import { bytesOfField, varintField } from '../otlp/wire.ts'
import { type AnswerCall, CallError, endCall, readMessages, sendMessage } from './grpc-messages.ts'
import { rpcCodes } from './outcome.ts'

const service = 'grpc.health.v1.Health'

/** HealthCheckResponse.ServingStatus (grpc/health/v1/health.proto). */
const servingStatuses = { serving: 1, notServing: 2, serviceUnknown: 3 } as const
type ServingStatus = (typeof servingStatuses)[keyof typeof servingStatuses]

/** The .proto file of the service, for reflection. */
export const healthFile: FileDescriptor = describeFile({
  name: 'grpc/health/v1/health.proto',
  package: 'grpc.health.v1',
  dependencies: [],
  messages: linkMessages(
    {
      HealthCheckRequest: ['1 service string'],
      HealthCheckResponse: ['1 status ServingStatus'],
    },
    { ServingStatus: [] },
  ),
  enums: {
    'HealthCheckResponse.ServingStatus': ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'],
  },
  services: {
    Health: [
      { name: 'Check', request: 'HealthCheckRequest', response: 'HealthCheckResponse' },
      { name: 'Watch', request: 'HealthCheckRequest', response: 'HealthCheckResponse', responseStream: true },
    ],
  },
  typeName: (name) =>
    name === 'ServingStatus'
      ? '.grpc.health.v1.HealthCheckResponse.ServingStatus'
      : `.grpc.health.v1.${name}`,
})

interface Watcher {
  readonly stream: ServerHttp2Stream
  readonly service: string
  told: ServingStatus | undefined
}

/**
 * `grpc.health.v1.Health` for load balancers: `Check`, and `Watch`, which tells each change ("gRPC Health Checking
 * Protocol"). The service '' is the whole server.
 */
export class GrpcHealth {
  readonly #services: ReadonlySet<string>
  readonly #serving: () => boolean
  readonly #watchers = new Set<Watcher>()

  constructor(options: { services: readonly string[]; serving: () => boolean }) {
    this.#services = new Set(['', service, ...options.services])
    this.#serving = options.serving
  }

  /** What answers the calls of each method, by its path. */
  get methods(): [path: string, answer: AnswerCall][] {
    return [
      [`/${service}/Check`, (stream, encoding) => this.#check(stream, encoding)],
      [`/${service}/Watch`, (stream, encoding) => this.#watch(stream, encoding)],
    ]
  }

  /** Tells those who watch what has changed. */
  look(): void {
    for (const watcher of this.#watchers) this.#tell(watcher)
  }

  /** Tells those who watch that this is the end. */
  stop(): void {
    this.look()
    for (const { stream } of this.#watchers) endCall(stream, rpcCodes.unavailable, 'shutting down')
  }

  async #check(stream: ServerHttp2Stream, encoding: string | undefined): Promise<void> {
    const status = this.#statusOf(await askedService(stream, encoding))
    if (status === servingStatuses.serviceUnknown) throw new CallError(rpcCodes.notFound, 'unknown service')
    sendMessage(stream, varintField(1, status))
    endCall(stream, rpcCodes.ok)
  }

  /** Resolves when the call has ended. */
  async #watch(stream: ServerHttp2Stream, encoding: string | undefined): Promise<void> {
    const watcher: Watcher = { stream, service: await askedService(stream, encoding), told: undefined }
    if (stream.closed) return
    const closed = once(stream, 'close')
    this.#watchers.add(watcher)
    this.#tell(watcher)
    await closed
    this.#watchers.delete(watcher)
  }

  #tell(watcher: Watcher): void {
    const status = this.#statusOf(watcher.service)
    // Whoever does not read is told the last of the changes when he does.
    if (status === watcher.told || watcher.stream.writableLength > 0) return
    watcher.told = status
    sendMessage(watcher.stream, varintField(1, status))
  }

  #statusOf(asked: string): ServingStatus {
    if (!this.#services.has(asked)) return servingStatuses.serviceUnknown
    return this.#serving() ? servingStatuses.serving : servingStatuses.notServing
  }
}

/** The service that the one message of a call asks for. */
async function askedService(stream: ServerHttp2Stream, encoding: string | undefined): Promise<string> {
  const messages: Buffer[] = []
  await readMessages(stream, encoding, (message) => messages.push(message))
  const [message] = messages
  if (message === undefined || messages.length > 1) {
    throw new CallError(rpcCodes.invalidArgument, `the call has ${messages.length} messages; it takes one`)
  }
  return bytesOfField(message, 1)?.toString() ?? ''
}
