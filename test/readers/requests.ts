import { gzipSync } from 'node:zlib'
import type { BatchRow } from '../../src/sink/object.ts'

/** A length-delimited field of a protobuf message. */
function field(number: number, bytes: Buffer): Buffer {
  const length: number[] = []
  for (let rest = bytes.length; ; rest >>>= 7) {
    length.push(rest > 127 ? (rest & 127) | 128 : rest)
    if (rest <= 127) break
  }
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...length]), bytes])
}

/** An ExportTraceServiceRequest of one span with this name and this much text in it. */
export function traceRequest(name: string, textBytes: number): Buffer {
  const value = field(1, Buffer.from(`${name} `.repeat(textBytes).slice(0, textBytes)))
  const attribute = field(9, Buffer.concat([field(1, Buffer.from('text')), field(2, value)]))
  const ids = Buffer.concat([field(1, Buffer.alloc(16, name)), field(2, Buffer.alloc(8, name))])
  const span = field(2, Buffer.concat([ids, field(5, Buffer.from(name)), attribute]))
  return field(1, field(2, span))
}

/** The rows of a batch of 25 requests, of 200 to 5,000 bytes. */
export function traceRows(encoding: BatchRow['encoding']): (BatchRow & { request: Buffer })[] {
  return Array.from({ length: 25 }, (_, number) => {
    const request = traceRequest(`span-${number}`, 200 * (number + 1))
    const payload = encoding === 'gzip' ? gzipSync(request) : request
    return {
      id: BigInt(number + 1),
      tenant: 'default',
      signal: 'traces',
      encoding,
      items: 1,
      bytes: payload.length,
      payload,
      request,
      summary: {
        minTimeUnixNano: undefined,
        maxTimeUnixNano: undefined,
        services: [],
        traceHashes: new BigInt64Array(),
        cut: false,
      },
    }
  })
}
