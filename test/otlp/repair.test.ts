import { describe, expect, test } from 'vitest'
import type { Signal } from '../../src/otlp/signal.ts'
import { walk } from '../../src/otlp/walk.ts'
import {
  attribute,
  field,
  fixed64,
  logRequest,
  number,
  paddedVarint,
  pointRequest,
  resource,
  spanRequest,
  tag,
} from './wire-format.ts'

/** A four-byte character that lost its last byte: one maximal bad part of three bytes. */
const cutOff = Buffer.from([0xf0, 0x9f, 0x98])
const lone = Buffer.from([0xff])
const mark = '\ufffd'

function repaired(signal: Signal, body: Buffer): [number, Buffer] {
  const walked = walk(signal, body)
  // What was repaired is right by the walk's own measure.
  expect(walk(signal, walked.body)).toMatchObject({ items: walked.items, repairedStrings: 0 })
  return [walked.repairedStrings, walked.body]
}

describe('B10: a string that is not UTF-8 is repaired in every field', () => {
  type Build = (text: string | Buffer) => Buffer
  const builds: [string, Signal, Build][] = [
    ['span name', 'traces', (text) => spanRequest(field(5, text))],
    ['trace state', 'traces', (text) => spanRequest(field(3, text))],
    ['status message', 'traces', (text) => spanRequest(field(15, field(2, text), number(3, 2)))],
    ['event name', 'traces', (text) => spanRequest(field(11, field(2, text)))],
    ['link trace state', 'traces', (text) => spanRequest(field(13, field(3, text)))],
    ['attribute key', 'traces', (text) => spanRequest(attribute(9, text, number(3, 1)))],
    ['attribute value', 'traces', (text) => spanRequest(attribute(9, 'key', field(1, text)))],
    [
      'kvlist key',
      'traces',
      (text) => spanRequest(attribute(9, 'key', field(6, attribute(1, text, number(3, 1))))),
    ],
    [
      'value in an array',
      'traces',
      (text) => spanRequest(attribute(9, 'key', field(5, field(1, field(1, text))))),
    ],
    ['resource attribute key', 'traces', (text) => field(1, field(1, attribute(1, text, field(1, 'x'))))],
    ['service name', 'traces', (text) => field(1, resource(text))],
    ['entity key', 'traces', (text) => field(1, field(1, field(3, field(3, 'a'), field(3, text))))],
    ['scope name', 'traces', (text) => field(1, field(2, field(1, field(1, text))))],
    ['scope version', 'traces', (text) => field(1, field(2, field(1, field(2, text))))],
    ['schema url of a resource', 'traces', (text) => field(1, field(3, text))],
    ['schema url of a scope', 'traces', (text) => field(1, field(2, field(3, text)))],
    ['metric name', 'metrics', (text) => field(1, field(2, field(2, field(1, text))))],
    ['metric description', 'metrics', (text) => field(1, field(2, field(2, field(2, text))))],
    ['metric unit', 'metrics', (text) => field(1, field(2, field(2, field(3, text))))],
    [
      'exemplar attribute',
      'metrics',
      (text) => pointRequest(5, field(5, attribute(7, text, field(1, text)))),
    ],
    ['severity text', 'logs', (text) => logRequest(field(3, text))],
    ['log body', 'logs', (text) => logRequest(field(5, field(1, text)))],
    ['event name of a log', 'logs', (text) => logRequest(field(12, text))],
  ]

  test.each(builds)('%s', (_, signal, build) => {
    const strings = build('zz').toString('latin1').split('zz').length - 1
    for (const [bad, good] of [
      [cutOff, mark],
      [lone, mark],
      [Buffer.concat([Buffer.from('größe '), lone, cutOff, Buffer.from(' ✓')]), `größe ${mark}${mark} ✓`],
    ] as const) {
      expect(repaired(signal, build(bad))).toEqual([strings, build(good)])
    }
  })
})

describe('what counts as one bad part', () => {
  const decoder = new TextDecoder()

  test.each([
    'ff',
    'c0af',
    'e080af',
    'f08080af',
    'eda080',
    'edbfbf',
    'f4908080',
    'f5808080',
    'c2',
    'c241',
    'e2',
    'e282',
    'e28241',
    'f09f98',
    'f09f9841',
    'f09f',
    '80',
    'bf80',
    '41c2',
    'e1a0c0e1',
    'f0908dff41',
    'edff',
    'f48fbf',
    'c3a9ff',
    'efbfbd',
    '00ff00',
  ])('%s becomes what TextDecoder makes of it, in short and in long strings', (hex) => {
    const bytes = Buffer.from(hex, 'hex')
    for (const padding of ['', 'x'.repeat(200)]) {
      const text = Buffer.concat([Buffer.from(padding), bytes, Buffer.from(padding)])
      const [, body] = repaired('traces', spanRequest(field(5, text)))
      expect(body).toEqual(spanRequest(field(5, decoder.decode(text))))
    }
  })

  test('all pairs of bytes', () => {
    const names: Buffer[] = []
    for (let first = 0; first < 256; first++) {
      for (let second = 0x7f; second < 256; second++) names.push(Buffer.from([first, second]))
    }
    const request = (texts: (Buffer | string)[]): Buffer =>
      field(1, field(2, ...texts.map((text) => field(2, field(5, text)))))
    const [, body] = repaired('traces', request(names))
    expect(body.equals(request(names.map((name) => decoder.decode(name))))).toBe(true)
  })
})

describe('lengths', () => {
  test.each([125, 126, 127, 128, 129, 16_381, 16_382, 16_383, 16_384, 16_385, 2_097_151, 2_097_152])(
    'a string of %i bytes with a bad one has a right length, and so has all that holds it',
    (length) => {
      for (const around of length < 1_000_000 ? [0, 1, 2, 3, 4, 5] : [0]) {
        const text = Buffer.concat([Buffer.alloc(length - 1, 0x61), lone])
        const build = (name: Buffer | string): Buffer =>
          Buffer.concat([
            spanRequest(field(5, name), field(3, 'x'.repeat(around))),
            spanRequest(field(5, 'after')),
          ])
        expect(repaired('traces', build(text))[1].equals(build(`${'a'.repeat(length - 1)}${mark}`))).toBe(
          true,
        )
      }
    },
  )

  test('B4: padded lengths stay where nothing changed, and are written anew where it did', () => {
    const padded = (number: number, length: number, value: Buffer): Buffer =>
      Buffer.concat([tag(number, 2), paddedVarint(value.length, length), value])
    const good = padded(1, 5, field(3, 'schema'))
    const body = Buffer.concat([good, padded(1, 4, padded(2, 4, padded(2, 4, padded(5, 4, lone))))])
    expect(repaired('traces', body)).toEqual([1, Buffer.concat([good, spanRequest(field(5, mark))])])
  })

  test('B4: a status message of 127, 128, 16,383 and 16,384 bytes with reserved lengths is taken as it came', () => {
    for (const length of [127, 128, 16_383, 16_384]) {
      const message = Buffer.concat([tag(2, 2), paddedVarint(length, 4), Buffer.alloc(length, 0x61)])
      const status = Buffer.concat([tag(15, 2), paddedVarint(message.length, 4), message])
      const span = Buffer.concat([tag(2, 2), paddedVarint(status.length, 4), status])
      const body = field(1, field(2, span))
      expect(walk('traces', body)).toMatchObject({ items: 1, repairedStrings: 0, body })
    }
  })

  test('a bad part that takes as many bytes as U+FFFD changes no length', () => {
    expect(repaired('traces', spanRequest(field(5, cutOff)))[1].length).toBe(
      spanRequest(field(5, 'abc')).length,
    )
  })
})

describe('what is not a string stays', () => {
  test('bytes, ids, numbers, unknown fields and groups keep their bytes', () => {
    const around = [
      field(1, Buffer.alloc(16, 0xff)),
      field(2, Buffer.alloc(8, 0xfe)),
      fixed64(7, 2n ** 64n - 1n),
      number(6, 2n ** 64n - 1n),
      attribute(9, 'bytes', field(7, Buffer.alloc(40, 0xff))),
      field(500, Buffer.alloc(70, 0xff)),
      Buffer.concat([tag(30, 3), field(5, lone), tag(31, 3), fixed64(5, 7n), tag(31, 4), tag(30, 4)]),
    ]
    const build = (name: Buffer | string): Buffer => spanRequest(...around, field(5, name), ...around)
    expect(repaired('traces', build(lone))).toEqual([1, build(mark)])
  })
})

describe('size', () => {
  test('20 MiB of bad bytes become 60 MiB', () => {
    const bytes = 20 * 1024 * 1024
    const shell = spanRequest(field(5, Buffer.alloc(bytes))).length - bytes
    const walked = walk('traces', spanRequest(field(5, Buffer.alloc(bytes - shell, 0xff))))
    expect([walked.repairedStrings, walked.items]).toEqual([1, 1])
    expect(walked.body.equals(spanRequest(field(5, Buffer.alloc(3 * (bytes - shell), mark))))).toBe(true)
  })

  test('many bad strings are each repaired', () => {
    const build = (name: Buffer | string): Buffer =>
      field(1, field(2, ...Array.from({ length: 3000 }, () => field(2, field(5, name), field(3, 'ok')))))
    expect(repaired('traces', build(lone))).toEqual([3000, build(mark)])
  })
})
