import type { OutgoingHttpHeaders, ServerHttp2Stream } from 'node:http2'
import { retryInfo, statusBody, statusWithRetryInfo } from '../otlp/answer.ts'
import { encodeGrpcMessage, frame } from './grpc-framing.ts'
import type { Answer } from './outcome.ts'

/** The compressions that a message may have, as a client is told them. */
export const acceptedEncodings = 'identity,deflate,gzip,zstd'

/**
 * Answers a call with one message and the status OK. A client that has gone away gets nothing and harms nobody.
 */
export function answerMessage(stream: ServerHttp2Stream, message: Buffer, requestId: string): void {
  if (stream.destroyed || stream.headersSent) return
  stream.respond(openingHeaders(requestId), { waitForTrailers: true })
  stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
  stream.end(frame(message))
}

/**
 * Answers a call with an error, which is trailers alone: the first and last frame of headers ("gRPC over HTTP2",
 * Trailers-Only). Java's exporter does not repeat a call whose status comes later. When the client shall come again,
 * it is told when in both places where clients look: as a detail of `grpc-status-details-bin`, and alone.
 */
export function answerStatus(stream: ServerHttp2Stream, answer: Answer, requestId: string | undefined): void {
  if (stream.destroyed || stream.headersSent) return
  const headers: OutgoingHttpHeaders = {
    ...openingHeaders(requestId),
    'grpc-status': String(answer.rpcCode),
    'grpc-message': encodeGrpcMessage(answer.message),
  }
  if (answer.retryAfterSeconds !== undefined) {
    const { rpcCode, message, retryAfterSeconds } = answer
    headers['grpc-status-details-bin'] = base64(statusWithRetryInfo(rpcCode, message, retryAfterSeconds))
    headers['google.rpc.retryinfo-bin'] = base64(retryInfo(retryAfterSeconds))
  }
  stream.respond(headers, { endStream: true })
  finish(stream)
}

/** Answers what is no gRPC in plain HTTP, as its specification asks. */
export function answerHttp(stream: ServerHttp2Stream, answer: Answer, requestId: string): void {
  if (stream.destroyed || stream.headersSent) return
  const body = statusBody('json', answer.rpcCode, answer.message)
  stream.respond({
    ':status': answer.httpStatus,
    'content-type': 'application/json',
    'content-length': body.length,
    'x-request-id': requestId,
    ...(answer.httpStatus === 405 && { allow: 'POST' }),
  })
  stream.end(body)
  finish(stream)
}

/** Tells a client that still sends that nobody reads on (RFC 9113, section 8.1). */
function finish(stream: ServerHttp2Stream): void {
  if (!stream.readableEnded) stream.close()
}

/** The headers that every answer begins with. */
export function openingHeaders(requestId: string | undefined): OutgoingHttpHeaders {
  return {
    ':status': 200,
    'content-type': 'application/grpc',
    'grpc-accept-encoding': acceptedEncodings,
    ...(requestId !== undefined && { 'x-request-id': requestId }),
  }
}

/** Metadata in bytes are base64 without padding ("gRPC over HTTP2", Binary-Header). */
function base64(bytes: Buffer): string {
  return bytes.toString('base64').replace(/=+$/, '')
}
