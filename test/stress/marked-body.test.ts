import { gunzipSync } from 'node:zlib'
import { expect, it } from 'vitest'
import { findMarker, generateRequest, markerOf } from '../../stress/generator.ts'
import { bodyTemplate, markedBody, markedProtobuf } from '../../stress/marked-body.ts'
import { countItems } from '../../stress/otlp-messages.ts'

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
    expect(unpacked.buffer.equals(markedProtobuf(template, marker))).toBe(true)
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
