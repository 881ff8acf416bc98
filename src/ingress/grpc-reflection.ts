import type { ServerHttp2Stream } from 'node:http2'
import { describeFile, describeOtlp, type FileDescriptor } from '../otlp/descriptor.ts'
import { quoted } from '../otlp/error.ts'
import { linkMessages } from '../otlp/schema.ts'
import type { Signal } from '../otlp/signal.ts'
import { bytesField, bytesOfField, varintField } from '../otlp/wire.ts'
import { healthFile } from './grpc-health.ts'
import { type AnswerCall, CallError, endCall, readMessages, sendMessage } from './grpc-messages.ts'
import { rpcCodes } from './outcome.ts'

/** Both versions say the same; old clients know only the second. */
const packages = ['grpc.reflection.v1', 'grpc.reflection.v1alpha']

/** How much of its answers a client may leave unread: a few times all that there is to say. */
const UNREAD_BYTES_MAX = 256 * 1024

/** Field numbers of ServerReflectionRequest (grpc/reflection/v1/reflection.proto). */
const asked = { fileByFilename: 3, fileContainingSymbol: 4, listServices: 7 }
/** Field numbers of ServerReflectionResponse. */
const answered = { originalRequest: 2, files: 4, services: 6, error: 7 }

/**
 * Server reflection, so that `grpcurl` and the like need no .proto files ("gRPC Server Reflection Protocol"): what answers the
 * calls of each method, by its path.
 */
export function reflectionMethods(served: readonly Signal[]): [path: string, answer: AnswerCall][] {
  const files = [...describeOtlp(served), healthFile, ...packages.map(describeReflection)]
  return packages.map((name) => [
    `/${name}.ServerReflection/ServerReflectionInfo`,
    (stream, encoding) => answerQuestions(stream, encoding, files),
  ])
}

async function answerQuestions(
  stream: ServerHttp2Stream,
  encoding: string | undefined,
  files: readonly FileDescriptor[],
): Promise<void> {
  await readMessages(stream, encoding, (question) => {
    if (stream.writableLength > UNREAD_BYTES_MAX) {
      throw new CallError(rpcCodes.resourceExhausted, 'too many questions before the answers were read')
    }
    const originalRequest = bytesField(answered.originalRequest, question)
    sendMessage(stream, Buffer.concat([originalRequest, answerTo(question, files)]))
  })
  endCall(stream, rpcCodes.ok)
}

/** The answer to one question, without the question itself. */
function answerTo(question: Buffer, files: readonly FileDescriptor[]): Buffer {
  if (bytesOfField(question, asked.listServices) !== undefined) {
    const names = files.flatMap(({ services }) => services).sort()
    return bytesField(
      answered.services,
      Buffer.concat(names.map((name) => bytesField(1, bytesField(1, name)))),
    )
  }
  const symbol = bytesOfField(question, asked.fileContainingSymbol)?.toString()
  const name = bytesOfField(question, asked.fileByFilename)?.toString()
  const file = files.find((one) =>
    name === undefined ? one.symbols.includes(symbol ?? '') : one.name === name,
  )
  if (file === undefined) {
    const message = `nothing is known here of ${quoted(symbol ?? name ?? 'extensions')}`
    const error = Buffer.concat([varintField(1, rpcCodes.notFound), bytesField(2, message)])
    return bytesField(answered.error, error)
  }
  const all = withDependencies(file, files)
  return bytesField(answered.files, Buffer.concat(all.map(({ bytes }) => bytesField(1, bytes))))
}

/** A file and all that it builds on, each once. */
function withDependencies(file: FileDescriptor, files: readonly FileDescriptor[]): FileDescriptor[] {
  const all = new Set([file])
  // A set hands out what is added to it meanwhile.
  for (const { dependencies } of all) {
    for (const one of files) if (dependencies.includes(one.name)) all.add(one)
  }
  return [...all]
}

function describeReflection(packageName: string): FileDescriptor {
  return describeFile({
    name: `${packageName.replaceAll('.', '/')}/reflection.proto`,
    package: packageName,
    dependencies: [],
    messages: linkMessages(
      {
        ServerReflectionRequest: [
          '1 host string',
          '3 file_by_filename string message_request',
          '4 file_containing_symbol string message_request',
          '5 file_containing_extension ExtensionRequest message_request',
          '6 all_extension_numbers_of_type string message_request',
          '7 list_services string message_request',
        ],
        ExtensionRequest: ['1 containing_type string', '2 extension_number int32'],
        ServerReflectionResponse: [
          '1 valid_host string',
          '2 original_request ServerReflectionRequest',
          '4 file_descriptor_response FileDescriptorResponse message_response',
          '5 all_extension_numbers_response ExtensionNumberResponse message_response',
          '6 list_services_response ListServiceResponse message_response',
          '7 error_response ErrorResponse message_response',
        ],
        FileDescriptorResponse: ['1 file_descriptor_proto bytes*'],
        ExtensionNumberResponse: ['1 base_type_name string', '2 extension_number int32*'],
        ListServiceResponse: ['1 service ServiceResponse*'],
        ServiceResponse: ['1 name string'],
        ErrorResponse: ['1 error_code int32', '2 error_message string'],
      },
      {},
    ),
    enums: {},
    services: {
      ServerReflection: [
        {
          name: 'ServerReflectionInfo',
          request: 'ServerReflectionRequest',
          response: 'ServerReflectionResponse',
          requestStream: true,
          responseStream: true,
        },
      ],
    },
    typeName: (name) => `.${packageName}.${name}`,
  })
}
