import { readFileSync } from 'node:fs'
import path from 'node:path'
import type { LoadJob } from '../load.ts'

const payloads = path.join(import.meta.dirname, '../../test/payloads/bench')

/** A request of traces that is sent over and over; each of its spans has a trace of its own. */
export interface BenchBody {
  readonly name: string
  readonly spans: number
  readonly encoding: 'gzip' | 'identity'
  readonly bytes: Buffer
}

export const smallBody: BenchBody = {
  name: '10 spans gzip',
  spans: 10,
  encoding: 'gzip',
  bytes: read('spans-10.pb.gz'),
}

export const benchBodies: readonly BenchBody[] = [
  smallBody,
  { name: '100 spans gzip', spans: 100, encoding: 'gzip', bytes: read('spans-100.pb.gz') },
  { name: '100 spans', spans: 100, encoding: 'identity', bytes: read('spans-100.pb') },
]

function read(name: string): Buffer {
  return readFileSync(path.join(payloads, name))
}

/** Sends this body over keep-alive connections; each sends its next request when an answer came, unless a rate is given. */
export function loadOf(
  body: BenchBody,
  load: { url: URL; seconds: number; connections: number; perSecond?: number; lateSeconds?: number },
): LoadJob {
  return {
    urls: [load.url.origin],
    seconds: load.seconds,
    connections: load.connections,
    perSecond: load.perSecond,
    lateSeconds: load.lateSeconds ?? 0,
    templates: [],
    run: undefined,
    firstIndex: 0,
    bodies: [
      {
        path: '/v1/traces',
        contentType: 'application/x-protobuf',
        encoding: body.encoding,
        body: body.bytes,
      },
    ],
  }
}
