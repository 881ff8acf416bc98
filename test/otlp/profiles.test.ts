import { describe, expect, test } from 'vitest'
import { OtlpError } from '../../src/otlp/error.ts'
import { walk } from '../../src/otlp/walk.ts'
import { attribute, field, fixed32, fixed64, nestedArrays, number, resource, varint } from './wire-format.ts'

const bad = Buffer.from([0xff])
const profileId = field(7, Buffer.alloc(16, 1))

/** A request with one profile of these fields and a dictionary of those. */
function profileRequest(profile: Buffer[], dictionary: Buffer[] = []): Buffer {
  const scope = field(2, field(1, field(1, 'scope')), field(2, ...profile))
  return Buffer.concat([field(1, resource('shop'), scope), field(2, ...dictionary)])
}

function refusalOf(body: Buffer): string {
  try {
    walk('profiles', body)
  } catch (error) {
    if (error instanceof OtlpError) return `${error.rule}: ${error.message}`
    throw error
  }
  return 'taken'
}

describe('a profile as this release knows it', () => {
  test('is counted with its service and its time', () => {
    const body = profileRequest([profileId, fixed64(3, 1_700_000_000n)], [field(5, ''), field(5, 'main')])
    const walked = walk('profiles', Buffer.concat([body, body]))
    expect(walked).toMatchObject({
      items: 2,
      summary: {
        services: ['shop'],
        minTimeUnixNano: 1_700_000_000n,
        maxTimeUnixNano: 1_700_000_000n,
      },
      repairedStrings: 0,
    })
  })

  test('has its strings repaired', () => {
    const build = (text: string | Buffer) => profileRequest([profileId, field(9, text)], [field(5, text)])
    expect(walk('profiles', build(bad))).toMatchObject({ repairedStrings: 2, body: build('\ufffd') })
  })

  test('is refused when it nests deeper than readers go', () => {
    const value = (depth: number) => profileRequest([], [field(6, field(2, nestedArrays(depth)))])
    expect(refusalOf(value(48))).toBe('taken')
    expect(refusalOf(value(49))).toContain('depth: ')
  })
})

describe('a profile of another release', () => {
  test.each([
    ['a known field of another wire type', [number(9, 1)]],
    ['a message that has become a number', [number(1, 5), fixed32(3, 1)]],
    ['an id of another length', [field(7, Buffer.alloc(8, 1))]],
    ['a message that has become text', [field(2, 'no message at all')]],
    ['a list of numbers that has become text', [field(11, Buffer.from([0x80]))]],
    ['fields that nobody knows', [field(99, bad), number(20, 7)]],
  ])('is taken as it came: %s', (_, fields) => {
    for (const body of [profileRequest([profileId, ...fields]), profileRequest([profileId], fields)]) {
      const walked = walk('profiles', body)
      expect(walked).toMatchObject({ items: 1, summary: { services: ['shop'] }, repairedStrings: 0 })
      expect(walked.body).toBe(body)
    }
  })

  test('keeps its strings byte for byte, because none of them is known to be one', () => {
    const body = profileRequest([field(2, 'no message'), field(9, bad)], [field(5, bad)])
    expect(walk('profiles', body).body).toBe(body)
  })

  test('still has a resource, a scope and schema URLs, whose strings are repaired', () => {
    const build = (text: string | Buffer) => {
      const scope = field(2, field(1, field(1, text)), field(2, field(2, 'no message')), field(3, text))
      return field(1, field(1, attribute(1, 'key', field(1, text))), scope, field(3, text))
    }
    expect(walk('profiles', build(bad))).toMatchObject({ repairedStrings: 4, body: build('\ufffd') })
  })
})

describe('what no release can read is refused', () => {
  const at = 'form: not an export request of profiles: '
  test.each([
    [
      'a length past the end of its profile',
      profileRequest([Buffer.from([0x0a, 9])]),
      'resource_profiles.scope_profiles.profiles.field 1 at byte 41 has a length of 9 bytes where 0 are left in what holds it',
    ],
    ['a field with the number 0', profileRequest([varint(0)]), 'has a field with the number 0'],
    ['a group without an end in the dictionary', profileRequest([], [varint(99 * 8 + 3)]), 'has no end'],
    ['a dictionary that is cut off', profileRequest([], [field(5, 'main')]).subarray(0, -1), 'dictionary'],
  ])('%s', (_, body, message) => {
    const refusal = refusalOf(body)
    expect(refusal.startsWith(at)).toBe(true)
    expect(refusal).toContain(message)
  })

  test('a wrong wire type in what is stable', () => {
    expect(refusalOf(field(1, number(3, 1)))).toBe(
      'wire_type: not an export request of profiles: resource_profiles.schema_url at byte 2 has the wire type 0 where 2 belongs',
    )
  })
})
