import http from 'node:http'
import type { GeneratedRequest } from './generator.ts'

/** What a request came to. `lost` means that no answer came, so nobody can know whether it was taken. */
export type Answer =
  | {
      readonly kind: 'answered'
      readonly status: number
      readonly retryAfter: string | undefined
      readonly contentType: string | undefined
      readonly body: Buffer
      readonly tookMs: number
    }
  | { readonly kind: 'lost'; readonly why: string; readonly tookMs: number }

const answerWithinMs = 15_000

/** Sends export requests over keep-alive connections. */
export class HttpClient {
  readonly #agent: http.Agent

  constructor(connections: number) {
    this.#agent = new http.Agent({ keepAlive: true, maxSockets: connections })
  }

  /**
   * Sends one request and resolves with whatever came of it; it never rejects.
   *
   * @param how.chunked leaves the length away. `how.hangUp` goes away as soon as the whole body is sent.
   */
  send(
    ingress: URL,
    request: GeneratedRequest,
    how: { chunked?: boolean; hangUp?: boolean } = {},
  ): Promise<Answer> {
    const { encoding, body, contentType, signal } = request
    const startedMs = performance.now()
    return new Promise((resolve) => {
      const lost = (why: string) => resolve({ kind: 'lost', why, tookMs: performance.now() - startedMs })
      const outgoing = http.request(
        new URL(`/v1/${signal}`, ingress),
        {
          method: 'POST',
          agent: this.#agent,
          signal: AbortSignal.timeout(answerWithinMs),
          headers: {
            'Content-Type': contentType,
            ...(encoding === 'identity' ? {} : { 'Content-Encoding': encoding }),
            ...(how.chunked === true
              ? { 'Transfer-Encoding': 'chunked' }
              : { 'Content-Length': body.length }),
          },
        },
        (incoming) => {
          const chunks: Buffer[] = []
          incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
          incoming.on('error', (error) => lost(error.message))
          incoming.on('end', () => {
            const retryAfter = incoming.headers['retry-after']
            resolve({
              kind: 'answered',
              status: incoming.statusCode ?? 0,
              retryAfter: typeof retryAfter === 'string' ? retryAfter : undefined,
              contentType: incoming.headers['content-type'],
              body: Buffer.concat(chunks),
              tookMs: performance.now() - startedMs,
            })
          })
        },
      )
      outgoing.on('error', (error) => lost(error.message))
      if (how.chunked === true) {
        outgoing.write(body.subarray(0, body.length >> 1))
        outgoing.end(body.subarray(body.length >> 1))
      } else {
        outgoing.end(body, () => {
          if (how.hangUp === true) outgoing.destroy()
        })
      }
    })
  }

  close(): void {
    this.#agent.destroy()
  }
}
