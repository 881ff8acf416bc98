import { describe, expect, test } from 'vitest'
import { exportResponse, statusBody } from '../../src/otlp/answer.ts'
import { type Signal, signals } from '../../src/otlp/signal.ts'
import { field, number } from './wire-format.ts'

describe('the answer to an export', () => {
  test.each(Object.keys(signals) as Signal[])('a full success of %s is no bytes, or {}', (signal) => {
    expect(exportResponse(signal, 'protobuf')).toEqual(Buffer.alloc(0))
    expect(exportResponse(signal, 'json').toString()).toBe('{}')
  })

  test.each([
    ['traces', 'rejectedSpans'],
    ['metrics', 'rejectedDataPoints'],
    ['logs', 'rejectedLogRecords'],
    ['profiles', 'rejectedProfiles'],
  ] as const)('a partial success of %s names how many were rejected', (signal, name) => {
    const partial = { rejected: 300, message: 'full' }
    expect(exportResponse(signal, 'protobuf', partial)).toEqual(field(1, number(1, 300), field(2, 'full')))
    expect(exportResponse(signal, 'json', partial).toString()).toBe(
      `{"partialSuccess":{"${name}":"300","errorMessage":"full"}}`,
    )
  })
})

describe('google.rpc.Status', () => {
  test('has the code and the message', () => {
    expect(statusBody('protobuf', 3, 'bad größe')).toEqual(
      Buffer.concat([number(1, 3), field(2, 'bad größe')]),
    )
    expect(JSON.parse(statusBody('json', 14, 'a "quote"\n').toString())).toEqual({
      code: 14,
      message: 'a "quote"\n',
    })
  })

  test.each([
    ['x'.repeat(5000), 'x'.repeat(1024)],
    ['é'.repeat(5000), 'é'.repeat(512)],
    [`x${'é'.repeat(5000)}`, `x${'é'.repeat(511)}`],
    ['😀'.repeat(5000), '😀'.repeat(256)],
    ['half \ud83d', 'half \ufffd'],
    ['x'.repeat(1024), 'x'.repeat(1024)],
  ])('a message is well-formed and at most 1,024 bytes', (message, cut) => {
    expect(statusBody('protobuf', 3, message)).toEqual(Buffer.concat([number(1, 3), field(2, cut)]))
    expect(JSON.parse(statusBody('json', 3, message).toString())).toEqual({ code: 3, message: cut })
    expect(exportResponse('logs', 'protobuf', { rejected: 1, message })).toEqual(
      field(1, number(1, 1), field(2, cut)),
    )
  })
})
