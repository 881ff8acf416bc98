import { expect, test } from 'vitest'
import { formatOf } from '../../src/ingress/content-type.ts'
import { requestIdOf } from '../../src/ingress/request-id.ts'

test('a content type names its format in any case, with any parameters', () => {
  const types = [
    'application/x-protobuf',
    'Application/X-Protobuf',
    'application/json',
    'APPLICATION/JSON',
    'application/json; charset=utf-8',
    ' application/json ;charset="utf-8"',
    'application/x-protobuf; proto=a',
    'text/plain',
    'application/jsonp',
    'application',
    '',
    undefined,
  ]
  expect(types.map(formatOf)).toEqual([
    'protobuf',
    'protobuf',
    'json',
    'json',
    'json',
    'json',
    'protobuf',
    undefined,
    undefined,
    undefined,
    undefined,
    undefined,
  ])
})

test('a request id of up to 128 printable ASCII characters is kept', () => {
  for (const id of ['a', 'x y/z~!', 'f'.repeat(128)]) expect(requestIdOf(id)).toBe(id)
})

test('any other request id is replaced by a new UUID', () => {
  const made = [undefined, '', 'f'.repeat(129), 'é', 'tab\there', 'line\n'].map(requestIdOf)
  const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
  expect(made.filter((id) => uuid.test(id))).toEqual(made)
  expect(new Set(made).size).toBe(made.length)
})
