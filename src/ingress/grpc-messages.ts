import type { ServerHttp2Stream } from 'node:http2'
import { BodyTooLargeError, unpackAtOnce } from '../otlp/compression.ts'
import { OtlpError } from '../otlp/error.ts'
import { answerStatus, openingHeaders } from './grpc-answer.ts'
import { contentEncodingOf, declaredCallBytes, encodeGrpcMessage, frame, unframe } from './grpc-framing.ts'
import { type RpcCode, rpcCodes } from './outcome.ts'

/** Calls of health and reflection ask short questions: a few hundred bytes for each service. */
const CALL_BYTES_MAX = 16 * 1024

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
 * Hands over the messages of a call as they come, unpacked. Resolves when its client has sent the last one, or has gone.
 * Nothing is kept that was not asked for: at most `CALL_BYTES_MAX` of a call are read.
 *
 * @throws {CallError} when the bytes are no messages, or too many.
 */
export function readMessages(
  stream: ServerHttp2Stream,
  encoding: string | undefined,
  take: (message: Buffer) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const bytes = Buffer.alloc(CALL_BYTES_MAX)
    let usedBytes = 0
    let at = 0
    const onData = (chunk: Buffer) => {
      try {
        if (usedBytes + chunk.length > CALL_BYTES_MAX) {
          throw new CallError(rpcCodes.resourceExhausted, `the call has more than ${CALL_BYTES_MAX} bytes`)
        }
        usedBytes += chunk.copy(bytes, usedBytes)
        for (;;) {
          const rest = bytes.subarray(at, usedBytes)
          const messageBytes = declaredCallBytes(rest)
          if (messageBytes === undefined || rest.length < messageBytes) return
          at += messageBytes
          take(unpacked(rest.subarray(0, messageBytes), encoding))
        }
      } catch (thrown) {
        stop()
        reject(thrown)
      }
    }
    const onEnd = () => {
      stop()
      if (at === usedBytes) resolve()
      else reject(new CallError(rpcCodes.invalidArgument, 'the last message is cut off'))
    }
    const onClose = () => {
      stop()
      resolve()
    }
    const stop = () => {
      stream.off('data', onData)
      stream.off('end', onEnd)
      stream.off('close', onClose)
    }
    stream.on('data', onData)
    stream.on('end', onEnd)
    stream.on('close', onClose)
  })
}

function unpacked(framed: Buffer, encoding: string | undefined): Buffer {
  try {
    const unframed = unframe(framed)
    const contentEncoding = contentEncodingOf(unframed, encoding) ?? 'identity'
    return unpackAtOnce(contentEncoding, unframed.message, CALL_BYTES_MAX)
  } catch (thrown) {
    if (thrown instanceof OtlpError) {
      throw new CallError(rpcCodes.invalidArgument, thrown.message)
    }
    if (thrown instanceof BodyTooLargeError) {
      throw new CallError(rpcCodes.resourceExhausted, thrown.message)
    }
    throw thrown
  }
}

/** Sends one of the messages of an answer, after the headers if it is the first. */
export function sendMessage(stream: ServerHttp2Stream, message: Buffer): void {
  if (stream.destroyed || stream.writableEnded) return
  if (!stream.headersSent) stream.respond(openingHeaders(undefined), { waitForTrailers: true })
  stream.write(frame(message))
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
      ...(message !== '' && { 'grpc-message': encodeGrpcMessage(message) }),
    })
    // A client that still sends learns that nobody reads on.
    if (!stream.readableEnded) setImmediate(() => stream.close())
  })
  stream.end()
}

/**
 * Answers a call of one method; `encoding` is its `grpc-encoding`. Resolves when there is nothing more to say.
 *
 * @throws {CallError} that its client is to be told.
 */
export type AnswerCall = (stream: ServerHttp2Stream, encoding: string | undefined) => Promise<void>
