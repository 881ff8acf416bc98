import { AsyncLocalStorage } from 'node:async_hooks'
import http from 'node:http'
import https from 'node:https'
import { invariant } from '../foundation/failure.ts'
import { S3Answer } from './s3-failures.ts'

/** An error document is a few hundred bytes; what is longer is not one. */
const errorBodyBytesMax = 64 * 1024

interface Exchange {
  request: http.ClientRequest
  /** `writableFinished` would not do: it looks at the socket, which may carry the next request by then. */
  sent: boolean
  response: http.IncomingMessage | undefined
}

/** One call to the store: what ends it early, and what it has sent. */
interface Call {
  signal: AbortSignal
  exchanges: Exchange[]
}

/**
 * The `transport` of a minio `Client`, which by itself has no time limit, throws away the status and code of a 408,
 * 429 or 5xx, leaks the socket of each such answer, and writes to stderr. Every answer that is no success becomes an
 * `S3Answer` here, before the library sees it.
 */
export interface S3Transport {
  request: typeof http.request
  /**
   * Runs `work`: every request that the client makes inside belongs to this call, ends when `signal` aborts, and
   * leaves no socket behind that is not ready for the next request.
   */
  run<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T>
}

export function openS3Transport(scheme: 'http:' | 'https:'): S3Transport {
  const calls = new AsyncLocalStorage<Call>()
  const send = scheme === 'https:' ? https.request : http.request

  function request(options: https.RequestOptions, onResponse: (response: http.IncomingMessage) => void) {
    const call = calls.getStore()
    invariant(call !== undefined, 'a request to the object store outside of a call')
    const exchange: Exchange = {
      request: send({ ...options, signal: call.signal }, (response) => {
        exchange.response = response
        if (statusOf(response) < 300) return onResponse(response)
        readAnswer(response).then(
          (answer) => exchange.request.emit('error', answer),
          (error) => exchange.request.emit('error', error),
        )
      }),
      sent: false,
      response: undefined,
    }
    exchange.request.once('finish', () => {
      exchange.sent = true
    })
    call.exchanges.push(exchange)
    return exchange.request
  }

  return {
    request: request as typeof http.request,
    async run(signal, work) {
      const call: Call = { signal, exchanges: [] }
      try {
        return await calls.run(call, work)
      } finally {
        for (const exchange of call.exchanges) if (!isDone(exchange)) exchange.request.destroy()
      }
    },
  }
}

/** Both halves must be done: a server may answer without having read what we are still sending. */
function isDone({ sent, response }: Exchange): boolean {
  return sent && response?.complete === true
}

function statusOf(response: http.IncomingMessage): number {
  return response.statusCode ?? 0
}

async function readAnswer(response: http.IncomingMessage): Promise<S3Answer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > errorBodyBytesMax) break
    chunks.push(chunk)
  }
  const status = statusOf(response)
  const body = Buffer.concat(chunks).toString()
  // The answer to a HEAD has no body; MinIO says it in headers.
  const code =
    /<Code>([A-Za-z0-9._-]{1,64})<\/Code>/.exec(body)?.[1] ?? headerOf(response, 'x-minio-error-code')
  const message = /<Message>([^<]{1,512})/.exec(body)?.[1] ?? headerOf(response, 'x-minio-error-desc')
  return new S3Answer(status, code ?? codeOfStatus(status), message ?? response.statusMessage ?? '')
}

function codeOfStatus(status: number): string {
  if (status === 404) return 'NotFound'
  if (status === 412) return 'PreconditionFailed'
  return status === 416 ? 'InvalidRange' : `Http${status}`
}

function headerOf(response: http.IncomingMessage, name: string): string | undefined {
  const value = response.headers[name]
  return typeof value === 'string' ? value.replaceAll('"', '').slice(0, 512) : undefined
}
