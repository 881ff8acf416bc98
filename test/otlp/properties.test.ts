import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { OtlpError } from '../../src/otlp/error.ts'
import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import { jsonFromProtobuf } from '../../src/otlp/protobuf-to-json.ts'
import { splitTrace } from '../../src/otlp/requests.ts'
import { requestMessages } from '../../src/otlp/schema.ts'
import type { Signal } from '../../src/otlp/signal.ts'
import { walk } from '../../src/otlp/walk.ts'
import { decoded, payloads } from './payloads.ts'
import { decodeElsewhere, encodeElsewhere, itemsOf, requests } from './random-requests.ts'

const signals: Signal[] = ['traces', 'metrics', 'logs', 'profiles']
const samples = payloads.filter(({ contentType }) => contentType !== 'application/json')

/** Requests made from the whole schema are large: 30 of them hold each field many times. */
const fewRuns = { numRuns: 30 }

/** What `attempt` gives, or undefined where it throws an OtlpError. Whatever else is thrown fails the test. */
function unlessRefused<T>(attempt: () => T): T | undefined {
  try {
    return attempt()
  } catch (error) {
    if (!(error instanceof OtlpError)) throw error
    expect(error.message.length).toBeLessThanOrEqual(1000)
    return undefined
  }
}

describe.each(signals)('any request of %s', (signal) => {
  test('as protobufjs encodes it is taken, counted, and read back as what it was', () => {
    fc.assert(
      fc.property(requests(signal), (request) => {
        const body = encodeElsewhere(signal, request)
        const walked = walk(signal, body)
        expect(walked.body).toBe(body)
        expect(walked.items).toBe(itemsOf(requestMessages[signal], request))
        expect(JSON.parse(jsonFromProtobuf(signal, body))).toEqual(request)
      }),
      fewRuns,
    )
  })

  test('as JSON becomes the same protobuf, and JSON again', () => {
    fc.assert(
      fc.property(requests(signal), (request) => {
        const body = protobufFromJson(signal, Buffer.from(JSON.stringify(request)))
        expect(walk(signal, body).body).toBe(body)
        expect(decodeElsewhere(signal, body)).toEqual(
          decodeElsewhere(signal, encodeElsewhere(signal, request)),
        )
        const text = jsonFromProtobuf(signal, body)
        expect(JSON.parse(text)).toEqual(request)
        expect(text).not.toContain('\n')
      }),
      fewRuns,
    )
  })

  test('joined to another is one request with what both hold', () => {
    fc.assert(
      fc.property(requests(signal), requests(signal), (one, other) => {
        const bodies = [one, other].map((request) => encodeElsewhere(signal, request))
        const joined = Buffer.concat(bodies)
        const items = bodies.map((body) => walk(signal, body).items)
        expect(walk(signal, joined).items).toBe((items[0] ?? 0) + (items[1] ?? 0))
        const text = jsonFromProtobuf(signal, joined)
        const again = protobufFromJson(signal, Buffer.from(text))
        expect(decodeElsewhere(signal, again)).toEqual(decodeElsewhere(signal, joined))
      }),
      fewRuns,
    )
  })
})

interface Edit {
  readonly at: number
  readonly remove: number
  readonly insert: Uint8Array
}

const edits = fc.array(
  fc.record({
    at: fc.double({ min: 0, max: 1, noNaN: true }),
    remove: fc.oneof(fc.constant(0), fc.constant(1), fc.nat(20)),
    insert: fc.oneof(
      fc.uint8Array({ maxLength: 3 }),
      fc.constantFrom(...['\\ud83d', '"', '{', '}', ',', '\xff'].map(bytesOf)),
    ),
  }),
  { minLength: 1, maxLength: 4 },
)

function bytesOf(text: string): Uint8Array {
  return Buffer.from(text, 'latin1')
}

function edited(body: Buffer, changes: readonly Edit[]): Buffer {
  for (const { at, remove, insert } of changes) {
    const start = Math.floor(at * body.length)
    body = Buffer.concat([body.subarray(0, start), insert, body.subarray(start + remove)])
  }
  return body
}

describe('damaged requests', () => {
  test('are refused with an OtlpError, or every decoder takes what the walk makes of them', () => {
    const sample = fc.constantFrom(
      ...samples.map((payload) => ({ signal: payload.signal, body: decoded(payload) })),
    )
    fc.assert(
      fc.property(sample, edits, ({ signal, body }, changes) => {
        const walked = unlessRefused(() => walk(signal, edited(body, changes)))
        if (walked === undefined) return
        decodeElsewhere(signal, walked.body)
        expect(walk(signal, walked.body)).toMatchObject({ items: walked.items, repairedStrings: 0 })
        const again = protobufFromJson(signal, Buffer.from(jsonFromProtobuf(signal, walked.body)))
        expect(walk(signal, again).items).toBe(walked.items)
      }),
      { numRuns: 2000 },
    )
  })

  test('random bytes are refused with an OtlpError or are a request', () => {
    fc.assert(
      fc.property(fc.constantFrom(...signals), fc.uint8Array({ maxLength: 30 }), (signal, bytes) => {
        const walked = unlessRefused(() => walk(signal, Buffer.from(bytes)))
        if (walked === undefined) return
        decodeElsewhere(signal, walked.body)
        unlessRefused(() => jsonFromProtobuf(signal, walked.body))
      }),
      { numRuns: 5000 },
    )
  })

  test('damaged JSON is refused with an OtlpError, or becomes a request that the walk takes as it is', () => {
    const sample = fc.constantFrom(
      ...samples.map((payload) => ({
        signal: payload.signal,
        json: Buffer.from(
          jsonFromProtobuf(payload.signal, decoded(payload).subarray(0, payload.bytesDecoded)),
        ),
      })),
    )
    fc.assert(
      fc.property(sample, edits, ({ signal, json }, changes) => {
        const body = unlessRefused(() => protobufFromJson(signal, edited(json, changes)))
        if (body !== undefined) expect(walk(signal, body).body).toBe(body)
      }),
      { numRuns: 1000 },
    )
  })

  test('JSON is taken only where JSON.parse takes it, too', () => {
    const json = Buffer.from(
      '{"resourceSpans":[{"x":[1,-2.5e3,null,"\\u00e9",{"y":true}],"scopeSpans":[{"spans":[{"flags":1}]}]}]}',
    )
    fc.assert(
      fc.property(edits, (changes) => {
        const text = edited(json, changes)
        if (unlessRefused(() => protobufFromJson('traces', text)) !== undefined) JSON.parse(text.toString())
      }),
      { numRuns: 5000 },
    )
  })
})

describe('traces cut out of a request', () => {
  test('hold each span once, and nothing but what was there', () => {
    const ids = ['01', '02', '03'].map((byte) => byte.repeat(16))
    const span = fc.record({ traceId: fc.constantFrom(...ids), name: fc.string({ unit: 'grapheme' }) })
    const scope = fc.record({
      scope: fc.record({ name: fc.string({ unit: 'grapheme' }) }),
      spans: fc.array(span),
    })
    const resource = fc.record({ schemaUrl: fc.string({ unit: 'grapheme' }), scopeSpans: fc.array(scope) })
    fc.assert(
      fc.property(fc.array(resource), (resourceSpans) => {
        const body = encodeElsewhere('traces', { resourceSpans })
        for (const id of ids) {
          const kept = resourceSpans
            .map((one) => ({
              ...one,
              scopeSpans: one.scopeSpans
                .map((scopeSpans) => ({
                  ...scopeSpans,
                  spans: scopeSpans.spans.filter(({ traceId }) => traceId === id),
                }))
                .filter(({ spans }) => spans.length > 0),
            }))
            .filter(({ scopeSpans }) => scopeSpans.length > 0)
          const expected = encodeElsewhere('traces', { resourceSpans: kept })
          expect(splitTrace(body, Buffer.from(id, 'hex'))).toEqual(expected)
        }
      }),
    )
  })
})
