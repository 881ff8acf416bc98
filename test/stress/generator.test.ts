import { gunzipSync, inflateSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { findMarker, generateRequest, markerLength, markerOf } from '../../stress/generator.ts'
import { canonicalRequest, countItems } from '../../stress/otlp-messages.ts'

const requests = Array.from({ length: 300 }, (_, index) => generateRequest({ seed: 7, run: 'test' }, index))

describe('the stress generator', () => {
  it('gives the same bytes for the same seed and number', () => {
    const again = requests.map((_, index) => generateRequest({ seed: 7, run: 'test' }, index))
    expect(again).toEqual(requests)
  })

  it('gives other bytes for another seed', () => {
    const other = generateRequest({ seed: 8, run: 'test' }, 0)
    expect(other.protobuf.equals(requests[0]?.protobuf ?? Buffer.alloc(0))).toBe(false)
  })

  it('mixes every signal, format and encoding', () => {
    const kinds = new Set(
      requests.flatMap(({ signal, format, encoding }) => [signal, `${format} ${encoding}`]),
    )
    expect([...kinds].sort()).toEqual([
      'json deflate',
      'json gzip',
      'json identity',
      'json zstd',
      'logs',
      'metrics',
      'protobuf deflate',
      'protobuf gzip',
      'protobuf identity',
      'protobuf zstd',
      'traces',
    ])
  })

  it('puts the marker of its number, and no other, into each request', () => {
    expect(requests.map(({ protobuf }) => findMarker(protobuf))).toEqual(
      requests.map((_, index) => markerOf('test', index)),
    )
    expect(new Set(requests.map(({ marker }) => marker.length))).toEqual(new Set([markerLength]))
  })

  it('counts items and spans of each trace truly', () => {
    for (const { signal, protobuf, items, traces } of requests) {
      expect(countItems(signal, protobuf)).toBe(items)
      const spans = [...traces.values()].reduce((total, count) => total + count, 0)
      expect(spans).toBe(signal === 'traces' ? items : 0)
    }
  })

  it('compresses what it says it sends', () => {
    const unpack = { gzip: gunzipSync, deflate: inflateSync, identity: (body: Buffer) => body }
    for (const { format, encoding, body, protobuf } of requests) {
      if (format !== 'protobuf' || encoding === 'zstd') continue
      expect(unpack[encoding](body).equals(protobuf)).toBe(true)
    }
  })

  it('writes JSON with ids in hex', () => {
    const request = requests.find(
      ({ signal, format, encoding }) => signal === 'traces' && format === 'json' && encoding === 'identity',
    )
    const ids = [...(request?.body.toString() ?? '').matchAll(/"traceId":"([^"]*)"/g)].map(([, id]) => id)
    expect(ids.length).toBeGreaterThanOrEqual(request?.items ?? 1)
    for (const id of ids) expect(id).toMatch(/^[0-9a-f]{32}$/)
  })
})

describe('the content of a request', () => {
  it('is one text whatever the order of its fields', () => {
    // A span with a status of message "a" and code 1, its two fields in both orders.
    const span = (status: string) => Buffer.from(`0a0b120912077a05${status}`, 'hex')
    expect(canonicalRequest('traces', span('1801120161'))).toBe(
      canonicalRequest('traces', span('1201611801')),
    )
  })
})
