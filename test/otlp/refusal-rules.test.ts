import { expect, test } from 'vitest'
import { OtlpError } from '../../src/otlp/error.ts'
import { walk } from '../../src/otlp/walk.ts'
import { attribute, field, nestedArrays, number, spanRequest, tag } from './wire-format.ts'

const group = (depth: number): Buffer =>
  Buffer.concat([...Array<Buffer>(depth).fill(tag(30, 3)), ...Array<Buffer>(depth).fill(tag(30, 4))])

/** What the fuzzer counts refusals by: other decoders take some of these bodies. */
test.each([
  ['an id of 15 bytes', 'id_length', spanRequest(field(1, Buffer.alloc(15)))],
  ['a name that is a number', 'wire_type', spanRequest(number(5, 1))],
  [
    'a varint whose tenth byte says more than one bit',
    'number_size',
    spanRequest(tag(6, 0), Buffer.from('ffffffffffffffffff7f', 'hex')),
  ],
  ['the same in a field that nobody knows', 'number_size', Buffer.from('8001ffffffffffffffffff7f', 'hex')],
  ['arrays in arrays', 'depth', spanRequest(attribute(9, 'key', nestedArrays(60)))],
  ['groups in groups', 'depth', group(100)],
  ['a field with the number 0', 'form', Buffer.from([0, 0])],
  ['a length that is cut off', 'form', Buffer.from([0x0a, 0x80])],
] as const)('%s breaks the rule %s', (_, rule, body) => {
  const refusal = (): unknown => {
    try {
      return walk('traces', body)
    } catch (error) {
      return error instanceof OtlpError ? error.rule : error
    }
  }
  expect(refusal()).toBe(rule)
})

test('a varint of 64 bits in ten bytes is taken', () => {
  const body = spanRequest(tag(6, 0), Buffer.from('ffffffffffffffffff01', 'hex'))
  expect(walk('traces', body).body).toBe(body)
})
