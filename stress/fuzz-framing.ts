import { constants, crc32, deflateRawSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { damageBytes } from './fuzz-bytes.ts'
import { lengthField } from './fuzz-protobuf.ts'
import type { SeededRandom } from './seeded-random.ts'

/** What a body says that it is packed with. */
export type FuzzEncoding = 'identity' | 'gzip' | 'deflate' | 'zstd'

/** Flags of a gzip header (RFC 1952, 2.3.1). */
const gzipFlags = { text: 1, headerCrc: 2, extra: 4, name: 8, comment: 16, reserved: 0xe0 } as const

/** One gzip member, good. */
function member(random: SeededRandom, content: Buffer): Buffer {
  if (random.chance(0.5)) return gzipSync(content, { level: random.pick([0, 1, 6, 9]) })
  const flags = random.between(0, 31)
  const header: Buffer[] = [Buffer.from([0x1f, 0x8b, 8, flags, ...random.bytes(6)])]
  if (flags & gzipFlags.extra) {
    const extra = random.bytes(random.between(0, 12))
    header.push(Buffer.of(extra.length, 0), extra)
  }
  for (const flag of [gzipFlags.name, gzipFlags.comment])
    if (flags & flag) header.push(Buffer.from('spans\0'))
  if (flags & gzipFlags.headerCrc) {
    const check = Buffer.alloc(2)
    check.writeUInt16LE(crc32(Buffer.concat(header)) & 0xffff)
    header.push(check)
  }
  const end = Buffer.alloc(8)
  end.writeUInt32LE(crc32(content), 0)
  end.writeUInt32LE(content.length, 4)
  return Buffer.concat([...header, deflateRawSync(content, { level: random.pick([0, 1, 9]) }), end])
}

/** Content as one to four members, a good body. */
function gzipBody(random: SeededRandom, content: Buffer): Buffer {
  const members: Buffer[] = []
  let at = 0
  for (let left = random.pick([0, 0, 0, 1, 3]); left > 0; left--) {
    const end = random.between(at, content.length)
    members.push(member(random, content.subarray(at, end)))
    at = end
  }
  return Buffer.concat([...members, member(random, content.subarray(at))])
}

/** A gzip body with something wrong with it. */
function wrongGzip(random: SeededRandom, good: Buffer): Buffer {
  const changed = Buffer.from(good)
  switch (random.between(0, 7)) {
    case 0: // The check.
      changed.writeUInt32LE(random.between(0, 2 ** 32 - 1), changed.length - 8)
      return changed
    case 1: // The length.
      changed.writeUInt32LE(random.pick([0, 1, 2 ** 31, 2 ** 32 - 1]), changed.length - 4)
      return changed
    case 2: // The header.
      changed[random.between(0, 9)] = random.between(0, 255)
      return changed
    case 3:
      changed[3] = (changed[3] ?? 0) | random.pick([2, 0x20, 0x40, 0x80, 4, 8])
      return changed
    case 4: // What is behind it.
      return Buffer.concat([good, Buffer.alloc(random.between(1, 600))])
    case 5:
      return Buffer.concat([good, Buffer.alloc(random.between(0, 8)), random.bytes(random.between(1, 20))])
    case 6:
      return Buffer.concat([good, Buffer.alloc(random.between(0, 3)), gzipSync(random.bytes(5))])
    default:
      return damageBytes(random, good)
  }
}

function zstdBody(random: SeededRandom, content: Buffer): Buffer {
  const frame = (bytes: Buffer) =>
    zstdCompressSync(bytes, {
      params: {
        [constants.ZSTD_c_compressionLevel]: random.pick([1, 3]),
        [constants.ZSTD_c_checksumFlag]: random.between(0, 1),
        [constants.ZSTD_c_contentSizeFlag]: random.between(0, 1),
      },
    })
  const skippable = Buffer.from(`5${random.between(0, 9)}2a4d1803000000aabbcc`, 'hex')
  const parts = random.chance(0.2) ? [skippable] : []
  const end = random.chance(0.3) ? random.between(0, content.length) : 0
  if (end > 0) parts.push(frame(content.subarray(0, end)))
  if (random.chance(0.1)) parts.push(skippable)
  return Buffer.concat([...parts, frame(content.subarray(end))])
}

/** Content packed as `encoding` says, good. */
export function packWell(random: SeededRandom, encoding: FuzzEncoding, content: Buffer): Buffer {
  switch (encoding) {
    case 'gzip':
      return gzipBody(random, content)
    case 'deflate':
      return random.chance(0.5)
        ? deflateSync(content, { level: random.pick([0, 1, 9]), windowBits: random.between(9, 15) })
        : deflateRawSync(content)
    case 'zstd':
      return zstdBody(random, content)
    case 'identity':
      return content
  }
}

/** What is small when packed: zeros, or a request that holds them in a field that nobody knows. */
function bomb(random: SeededRandom): Buffer {
  const zeros = Buffer.alloc(random.pick([100_000, 1_500_000, 6_000_000]))
  return random.chance(0.5) ? zeros : lengthField(1000, zeros)
}

/** The same with something wrong with it: in its frame, in its bytes, or it is another encoding. */
export function packBadly(random: SeededRandom, encoding: FuzzEncoding, content: Buffer): Buffer {
  if (random.chance(0.05))
    return packWell(random, random.pick(['gzip', 'deflate', 'zstd', 'identity']), content)
  if (random.chance(0.02)) return packWell(random, encoding, bomb(random))
  if (random.chance(0.02)) return packWell(random, encoding, packWell(random, encoding, content))
  const good = packWell(random, encoding, content)
  return encoding === 'gzip' ? wrongGzip(random, good) : damageBytes(random, good)
}

/** The body of a gRPC call with this message. */
export function framed(message: Buffer, compressed: boolean): Buffer {
  const prefix = Buffer.alloc(5)
  prefix[0] = compressed ? 1 : 0
  prefix.writeUInt32BE(message.length, 1)
  return Buffer.concat([prefix, message])
}

/** The body of a gRPC call with something wrong with its prefix, or with what is behind the message. */
export function framedBadly(random: SeededRandom, message: Buffer, compressed: boolean): Buffer {
  const good = framed(message, compressed)
  switch (random.between(0, 6)) {
    case 0:
      good[0] = random.pick([1 - (good[0] ?? 0), 2, 255, random.between(0, 255)])
      return good
    case 1:
      good.writeUInt32BE(
        random.pick([0, 1, message.length + 1, Math.max(0, message.length - 1), 2 ** 31, 2 ** 32 - 1]),
        1,
      )
      return good
    case 2:
      return good.subarray(0, random.between(0, Math.min(8, good.length)))
    case 3:
      return Buffer.concat([good, framed(message, compressed)])
    case 4:
      return Buffer.concat([good, random.bytes(random.between(1, 6))])
    case 5:
      return Buffer.concat([framed(Buffer.alloc(0), random.chance(0.5)), good])
    default:
      return damageBytes(random, good)
  }
}
