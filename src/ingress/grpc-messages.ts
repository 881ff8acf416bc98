import type { ServerHttp2Stream } from 'node:http2'
import { OtlpError } from '../otlp/error.ts'
import { answerStatus, openingHeaders } from './grpc-answer.ts'
import { declaredCallBytes, frame, unframe } from './grpc-framing.ts'
import { type RpcCode, rpcCodes } from './outcome.ts'

/** Calls of health and reflection ask short questions. */
const MESSAGE_BYTES_MAX = 64 * 1024

/** An error that the client of a call is told. */
export class CallError extends Error {
  readonly rpcCode: RpcCode

  constructor(rpcCode: RpcCode, message: string) {
    super(message)
    this.name = 'CallError'
    this.rpcCode = rpcCode
  }
}

/**
 * The messages of a call, uncompressed and short, as they come.
 *
 * @throws {CallError} when they are anything else.
 */
export async function* readMessages(stream: ServerHttp2Stream): AsyncGenerator<Buffer> {
  let waiting: Buffer = Buffer.alloc(0)
  // Whoever has read enough still has to answer.
  const chunks = stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>
  for await (const chunk of chunks) {
    waiting = waiting.length === 0 ? chunk : Buffer.concat([waiting, chunk])
    for (;;) {
      const bytes = declaredCallBytes(waiting)
      if (bytes !== undefined && bytes > MESSAGE_BYTES_MAX) {
        throw new CallError(
          rpcCodes.resourceExhausted,
          `the message is larger than ${MESSAGE_BYTES_MAX} bytes`,
        )
      }
      if (bytes === undefined || waiting.length < bytes) break
      yield uncompressed(waiting.subarray(0, bytes))
      waiting = waiting.subarray(bytes)
    }
  }
  if (waiting.length > 0) uncompressed(waiting)
}

function uncompressed(framed: Buffer): Buffer {
  try {
    const { compressed, message } = unframe(framed)
    if (!compressed) return message
  } catch (thrown) {
    if (thrown instanceof OtlpError) throw new CallError(rpcCodes.invalidArgument, thrown.message)
    throw thrown
  }
  throw new CallError(rpcCodes.unimplemented, 'messages of this service must not be compressed')
}

/**
 * Sends one of the messages of an answer, after the headers if it is the first. Resolves when the client has read enough
 * for the next one, or has gone.
 */
export async function sendMessage(stream: ServerHttp2Stream, message: Buffer): Promise<void> {
  if (stream.destroyed || stream.writableEnded) return
  if (!stream.headersSent) stream.respond(openingHeaders(undefined), { waitForTrailers: true })
  if (stream.write(frame(message))) return
  const { promise, resolve } = Promise.withResolvers<void>()
  stream.on('drain', resolve)
  stream.on('close', resolve)
  await promise
  stream.off('drain', resolve)
  stream.off('close', resolve)
}

/** Ends an answer with a status, whether it has begun or not. */
export function endCall(stream: ServerHttp2Stream, rpcCode: RpcCode, message = ''): void {
  if (stream.destroyed || stream.writableEnded) return
  if (!stream.headersSent) {
    answerStatus(stream, { httpStatus: 200, rpcCode, message, retryAfterSeconds: undefined }, undefined)
    return
  }
  stream.once('wantTrailers', () => {
    stream.sendTrailers({
      'grpc-status': String(rpcCode),
      ...(message !== '' && { 'grpc-message': message }),
    })
  })
  stream.end()
}

/** Ends a call with what went wrong with it. A client that broke it off is told nothing; a bug of ours is thrown. */
export function endCallWithError(stream: ServerHttp2Stream, thrown: unknown): void {
  if (thrown instanceof CallError) endCall(stream, thrown.rpcCode, thrown.message)
  else if (!stream.destroyed && !stream.aborted) throw thrown
}
