import type { SeededRandom } from './seeded-random.ts'

/** Bytes at which readers have stumbled: cut-off and overlong UTF-8, halves of surrogates, NUL, what looks like lengths. */
export const strangeBytes: readonly [Buffer, ...Buffer[]] = [
  'ff',
  '00',
  '80',
  'c0af',
  'eda080',
  'f09f98',
  'f4908080',
  'efbbbf',
  'efbfbd',
  'c3a9',
  'f09f9880',
  'ffffffffffffffffff01',
  '61ff62ff63ff64ff65ff66ff67ff68ff',
].map((hex) => Buffer.from(hex, 'hex')) as [Buffer, ...Buffer[]]

type Damage = (random: SeededRandom, bytes: Buffer) => Buffer

const damages: readonly [Damage, ...Damage[]] = [
  // Bits that fell over.
  (random, bytes) => {
    const flipped = Buffer.from(bytes)
    for (let left = random.between(1, 4); left > 0 && bytes.length > 0; left--) {
      const at = random.between(0, bytes.length - 1)
      flipped[at] = (flipped[at] ?? 0) ^ (1 << random.between(0, 7))
    }
    return flipped
  },
  // A byte of another value.
  (random, bytes) => {
    const changed = Buffer.from(bytes)
    if (bytes.length > 0)
      changed[random.between(0, bytes.length - 1)] = random.pick([
        0,
        1,
        0x7f,
        0x80,
        0xff,
        random.between(0, 255),
      ])
    return changed
  },
  // Something in between.
  (random, bytes) => {
    const at = random.between(0, bytes.length)
    const what = random.chance(0.5) ? random.pick(strangeBytes) : random.bytes(random.between(1, 8))
    return Buffer.concat([bytes.subarray(0, at), what, bytes.subarray(at)])
  },
  // Something missing.
  (random, bytes) => {
    const at = random.between(0, bytes.length)
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + random.between(1, 20))])
  },
  // Something twice.
  (random, bytes) => {
    const from = random.between(0, bytes.length)
    const to = Math.min(bytes.length, from + random.between(1, 64))
    return Buffer.concat([bytes.subarray(0, to), bytes.subarray(from)])
  },
  // Cut off.
  (random, bytes) => bytes.subarray(0, random.between(0, bytes.length)),
  (random, bytes) => bytes.subarray(random.between(0, bytes.length)),
  (random, bytes) => bytes.subarray(0, Math.max(0, bytes.length - random.between(1, 10))),
  // Something behind it.
  (random, bytes) =>
    Buffer.concat([
      bytes,
      random.chance(0.5) ? Buffer.alloc(random.between(1, 9)) : random.bytes(random.between(1, 9)),
    ]),
]

/** Bytes with one damage, whatever they are. */
export function damageBytes(random: SeededRandom, bytes: Buffer): Buffer {
  return random.pick(damages)(random, bytes)
}

/** The beginning of one and the end of the other. */
export function splice(random: SeededRandom, one: Buffer, other: Buffer): Buffer {
  return Buffer.concat([
    one.subarray(0, random.between(0, one.length)),
    other.subarray(random.between(0, other.length)),
  ])
}
