import { createHash } from 'node:crypto'
import zlib, { constants } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { BodyTooLargeError, pack, unpack } from '../../src/otlp/compression.ts'
import { OtlpError } from '../../src/otlp/error.ts'
import { payloadFile } from './payloads.ts'

const limit = 20 * 1024 * 1024
const text = payloadFile('js-traces.pb')
const other = payloadFile('js-logs.pb')
/** More than is unpacked at once, packed as well. */
const large = Buffer.alloc(1_500_000)
for (let i = 0; i < large.length; i++) large[i] = ((i * 7919) % 251) ^ (i >> 7)
const zeros = Buffer.alloc(limit + 1)
const { gzipSync, deflateSync, deflateRawSync, zstdCompressSync } = zlib

function hash(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

async function outcome(encoding: string | undefined, body: Buffer, limitBytes = limit): Promise<unknown> {
  try {
    const { bytes, gzip } = await unpack(encoding, body, limitBytes)
    return { length: bytes.length, hash: hash(bytes), kept: gzip === undefined ? undefined : gzip === body }
  } catch (error) {
    if (error instanceof OtlpError || error instanceof BodyTooLargeError)
      return `${error.name}: ${error.message}`
    throw error
  }
}

function unpacked(bytes: Buffer, kept?: true): unknown {
  return { length: bytes.length, hash: hash(bytes), kept }
}

describe('each encoding gives back what was packed', () => {
  test('none, and identity: the very buffer', async () => {
    for (const encoding of [undefined, '', 'identity', ' Identity ']) {
      expect((await unpack(encoding, text, limit)).bytes).toBe(text)
    }
  })

  for (const [size, bytes] of [
    ['small', text],
    ['large', large],
  ] as const) {
    test(`gzip, ${size}, kept as it came`, async () => {
      for (const encoding of ['gzip', 'x-gzip', 'GZIP']) {
        expect(await outcome(encoding, gzipSync(bytes))).toEqual(unpacked(bytes, true))
      }
    })

    test(`gzip of several members, ${size}, kept as it came`, async () => {
      const body = Buffer.concat([gzipSync(bytes), gzipSync(Buffer.alloc(0)), gzipSync(other)])
      expect(await outcome('gzip', body)).toEqual(unpacked(Buffer.concat([bytes, other]), true))
    })

    test(`C5: deflate, ${size}, of every window and without the wrapper`, async () => {
      for (let windowBits = 9; windowBits <= 15; windowBits++) {
        expect(await outcome('deflate', deflateSync(bytes, { windowBits }))).toEqual(unpacked(bytes))
      }
      for (const level of [0, 1, 6, 9]) {
        expect(await outcome('deflate', deflateRawSync(bytes, { level }))).toEqual(unpacked(bytes))
        expect(await outcome('deflate', deflateSync(bytes, { level }))).toEqual(unpacked(bytes))
      }
    })

    test(`C2: zstd, ${size}: all frames, skippable ones anywhere`, async () => {
      const frame = zstdCompressSync(bytes)
      const skippable = Buffer.from('502a4d1802000000aabb', 'hex')
      const last = Buffer.from('5f2a4d1800000000', 'hex')
      const next = zstdCompressSync(other)
      const both = Buffer.concat([bytes, other])
      expect(await outcome('zstd', frame)).toEqual(unpacked(bytes))
      expect(await outcome('zstd', Buffer.concat([frame, next]))).toEqual(unpacked(both))
      expect(await outcome('zstd', Buffer.concat([skippable, frame]))).toEqual(unpacked(bytes))
      expect(await outcome('zstd', Buffer.concat([skippable, frame, last, skippable, next, last]))).toEqual(
        unpacked(both),
      )
    })
  }

  test('zstd with a window of 8 MiB, as the Collector asks for', async () => {
    const body = zlib.zstdCompressSync(large, {
      params: { [constants.ZSTD_c_windowLog]: 23, [constants.ZSTD_c_contentSizeFlag]: 0 },
    })
    expect(await outcome('zstd', body)).toEqual(unpacked(large))
  })

  test('a body of no bytes is one of no bytes', async () => {
    for (const encoding of [undefined, 'gzip', 'deflate', 'zstd']) {
      expect(await outcome(encoding, Buffer.alloc(0))).toEqual(unpacked(Buffer.alloc(0)))
    }
  })

  test('what packs to nothing', async () => {
    for (const [encoding, body] of [
      ['gzip', gzipSync(Buffer.alloc(0))],
      ['deflate', deflateSync(Buffer.alloc(0))],
      ['deflate', deflateRawSync(Buffer.alloc(0))],
      ['zstd', zstdCompressSync(Buffer.alloc(0))],
    ] as const) {
      expect(await outcome(encoding, body)).toEqual(
        unpacked(Buffer.alloc(0), encoding === 'gzip' ? true : undefined),
      )
    }
  })
})

describe('C1, C2, C5: bytes after the end are refused', () => {
  const ends = (name: string, end: number, length: number): string =>
    `OtlpError: the ${name} body ends after ${end} of its ${length} bytes`

  for (const [size, bytes] of [
    ['small', text],
    ['large', large],
  ] as const) {
    test(`of gzip, ${size}`, async () => {
      const good = gzipSync(bytes)
      const zeros8 = Buffer.concat([good, Buffer.alloc(8)])
      expect(await outcome('gzip', zeros8)).toBe(ends('gzip', good.length, good.length + 8))
      const hidden = Buffer.concat([zeros8, gzipSync(Buffer.from('garbage'))])
      expect(await outcome('gzip', hidden)).toBe(ends('gzip', good.length, hidden.length))
      const newline = Buffer.concat([good, Buffer.from('\n')])
      expect(await outcome('gzip', newline)).toMatch(/^OtlpError: the body is not gzip: /)
      const magic = Buffer.concat([good, Buffer.from([0x1f, 0x8b])])
      expect(await outcome('gzip', magic)).toMatch(/^OtlpError: the body is not gzip: /)
    })

    test(`of deflate, ${size}`, async () => {
      for (const good of [deflateSync(bytes), deflateRawSync(bytes)]) {
        for (const rest of [Buffer.from([7]), Buffer.alloc(1), good]) {
          const body = Buffer.concat([good, rest])
          expect(await outcome('deflate', body)).toBe(ends('deflate', good.length, body.length))
        }
      }
    })

    test(`of zstd, ${size}`, async () => {
      const good = zstdCompressSync(bytes)
      for (const rest of [Buffer.alloc(1), Buffer.alloc(8), Buffer.from('garbage!'), good.subarray(0, 4)]) {
        expect(await outcome('zstd', Buffer.concat([good, rest]))).toMatch(
          /^OtlpError: the body is not zstd: /,
        )
      }
      for (const cut of ['502a4d18', '502a4d1805000000aabb', '502a4d18ffffffff']) {
        expect(await outcome('zstd', Buffer.concat([good, Buffer.from(cut, 'hex')]))).toBe(
          'OtlpError: the zstd body is cut off in a skippable frame',
        )
      }
    })
  }
})

describe('what is not what it says is refused', () => {
  // Only with its checksum does zstd notice every damage.
  const params = { [constants.ZSTD_c_checksumFlag]: 1 }
  const packers = {
    gzip: gzipSync,
    deflate: deflateSync,
    zstd: (bytes: Buffer) => zstdCompressSync(bytes, { params }),
  }

  test.each(['gzip', 'deflate', 'zstd'] as const)('%s: plain bytes, cut off, damaged', async (encoding) => {
    for (const bytes of [text, large]) {
      const good = packers[encoding](bytes)
      const damaged = Buffer.from(good)
      for (let i = good.length >> 1; i < (good.length >> 1) + 20; i++) damaged[i] = (damaged[i] ?? 0) ^ 0x5a
      for (const body of [bytes, good.subarray(0, -5), good.subarray(0, 20), damaged]) {
        expect(await outcome(encoding, body)).toMatch(
          new RegExp(`^OtlpError: the ${encoding} body ends|^OtlpError: the body is not ${encoding}: `),
        )
      }
    }
  })

  test('an unknown encoding', async () => {
    expect(await outcome('x-nope', text)).toBe(
      'OtlpError: the content encoding "x-nope" is not one of gzip, deflate, zstd and identity',
    )
    expect(await outcome('gzip, gzip', text)).toMatch(/^OtlpError: the content encoding/)
    expect(String(await outcome('x'.repeat(10_000), text)).length).toBeLessThan(300)
  })

  test('a zlib body that wants a dictionary', async () => {
    expect(await outcome('deflate', deflateSync(text, { dictionary: Buffer.from('abc') }))).toMatch(
      /^OtlpError: the body is not deflate: /,
    )
  })
})

describe('limits', () => {
  const tooLarge = (bytes: number): string => `BodyTooLargeError: the body has more than ${bytes} bytes`

  test('of a body as it came', async () => {
    expect(await outcome(undefined, text, text.length)).toEqual(unpacked(text))
    expect(await outcome(undefined, text, text.length - 1)).toBe(tooLarge(text.length - 1))
    expect(await outcome('gzip', gzipSync(text), 100)).toBe(tooLarge(100))
  })

  test('of what comes out, to the byte', async () => {
    for (const bytes of [text, large]) {
      for (const [encoding, body] of [
        ['gzip', gzipSync(bytes)],
        ['deflate', deflateSync(bytes)],
        ['deflate', deflateRawSync(bytes)],
        ['zstd', zstdCompressSync(bytes)],
        [
          'zstd',
          Buffer.concat([zstdCompressSync(bytes.subarray(0, 1000)), zstdCompressSync(bytes.subarray(1000))]),
        ],
        ['zstd', Buffer.concat([zstdCompressSync(bytes), zstdCompressSync(Buffer.alloc(0))])],
        [
          'zstd',
          Buffer.concat([zstdCompressSync(bytes.subarray(0, -1)), zstdCompressSync(bytes.subarray(-1))]),
        ],
      ] as const) {
        const kept = encoding === 'gzip' ? true : undefined
        expect(await outcome(encoding, body, bytes.length)).toEqual(unpacked(bytes, kept))
        expect(await outcome(encoding, body, bytes.length - 1)).toBe(tooLarge(bytes.length - 1))
      }
    }
  })

  test('bombs are stopped', async () => {
    const bombs = { gzip: gzipSync(zeros), deflate: deflateSync(zeros), zstd: zstdCompressSync(zeros) }
    for (const [encoding, body] of Object.entries(bombs))
      expect(await outcome(encoding, body)).toBe(tooLarge(limit))
    const members = Buffer.concat(Array(30).fill(gzipSync(zeros.subarray(0, 1024 * 1024))))
    expect(await outcome('gzip', members)).toBe(tooLarge(limit))
  })

  test('a gzip that tells a wrong length is found damaged', async () => {
    const body = gzipSync(text)
    body.writeUInt32LE(0xffffffff, body.length - 4)
    expect(await outcome('gzip', body)).toBe('OtlpError: the body is not gzip: incorrect length check')
  })

  test('C2: a zstd window of 2 GB is refused, and takes no memory', async () => {
    const body = Buffer.from('28b52ffd00a8010000', 'hex')
    const before = process.memoryUsage().rss
    for (let i = 0; i < 100; i++) {
      expect(await outcome('zstd', body)).toBe(
        'OtlpError: the body is not zstd: Frame requires too much memory for decoding',
      )
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(64 * 1024 * 1024)
  })

  test('a zstd body of a thousand frames is refused', async () => {
    expect(await outcome('zstd', Buffer.concat(Array(1000).fill(zstdCompressSync(Buffer.alloc(0)))))).toBe(
      'OtlpError: the zstd body has more than 256 frames',
    )
    expect(await outcome('zstd', Buffer.concat(Array(256).fill(zstdCompressSync(Buffer.from('a')))))).toEqual(
      unpacked(Buffer.alloc(256, 'a')),
    )
  })
})

describe('pack', () => {
  test.each([0, 1, 20_000, 1_500_000])(
    '%i bytes become one gzip member, the same each time',
    async (length) => {
      const packed = await pack(large.subarray(0, length))
      expect(zlib.gunzipSync(packed).equals(large.subarray(0, length))).toBe(true)
      expect((await pack(large.subarray(0, length))).equals(packed)).toBe(true)
    },
  )
})
