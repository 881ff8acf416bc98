import { gunzipSync } from 'node:zlib'
import { expect, it } from 'vitest'
import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import { findMarker, generateRequest, markerOf } from '../../stress/generator.ts'
import { bodyTemplate, jsonTemplate, markedBody, markedPlain } from '../../stress/marked-body.ts'
import { canonicalRequest, countItems } from '../../stress/otlp-messages.ts'

const { signal, items, protobuf } = generateRequest({ seed: 3, run: 'template' }, 5)

it('a marked gzip body is one gzip member of the marked request', () => {
  const template = bodyTemplate(signal, 'gzip', items, protobuf)
  for (const index of [0, 1, 123_456]) {
    const marker = markerOf('load', index)
    const body = markedBody(template, marker)
    const unpacked = gunzipSync(body, { info: true }) as unknown as {
      buffer: Buffer
      engine: { bytesWritten: number }
    }
    expect(unpacked.engine.bytesWritten).toBe(body.length)
    expect(unpacked.buffer.equals(markedPlain(template, marker))).toBe(true)
    expect(findMarker(unpacked.buffer)).toBe(marker)
  }
})

it('a marker adds no item', () => {
  const template = bodyTemplate(signal, 'identity', items, protobuf)
  expect(countItems(signal, markedBody(template, markerOf('load', 1)))).toBe(items)
})

it('copies of a template do not share bytes', () => {
  const template = bodyTemplate(signal, 'identity', items, protobuf)
  const first = markedBody(template, markerOf('load', 1))
  markedBody(template, markerOf('load', 2))
  expect(findMarker(first)).toBe(markerOf('load', 1))
})

it('a marked copy in JSON says what the marked copy in protobuf says', () => {
  const seeded = { seed: 3, run: 'template', format: 'json', encoding: 'identity' } as const
  const { signal, items, body, protobuf } = generateRequest(seeded, 5)
  const common = Buffer.from(body.toString().replace(/\]\}$/, ','))
  const marker = markerOf('load', 7)
  const json = markedPlain(jsonTemplate(signal, 'gzip', items, common), marker)
  const expected = markedPlain(bodyTemplate(signal, 'gzip', items, protobuf), marker)
  const stored = protobufFromJson(signal, json)
  expect(findMarker(stored)).toBe(marker)
  expect(canonicalRequest(signal, stored)).toBe(canonicalRequest(signal, expected))
})
