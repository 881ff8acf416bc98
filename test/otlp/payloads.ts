import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import type { Signal } from '../../src/otlp/signal.ts'

/** What `index.json` says of a request that a real SDK sent. */
export interface Payload {
  file: string
  signal: Signal
  contentType: string
  contentEncoding: string | null
  bytes: number
  bytesDecoded: number
  items: number
  traceIds?: number
  services: string[]
  minTimeUnixNano: string
  maxTimeUnixNano: string
}

export const payloads: readonly Payload[] = JSON.parse(payloadFile('index.json').toString())

export function payloadFile(name: string): Buffer {
  return readFileSync(new URL(`../payloads/${name}`, import.meta.url))
}

/** The request without its content encoding. */
export function decoded(payload: Payload): Buffer {
  const body = payloadFile(payload.file)
  return payload.contentEncoding === 'gzip' ? gunzipSync(body) : body
}
