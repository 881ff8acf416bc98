import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import type { Format } from '../src/otlp/answer.ts'
import { protobufFromJson } from '../src/otlp/json-to-protobuf.ts'
import { jsonFromProtobuf } from '../src/otlp/protobuf-to-json.ts'
import { type Signal, signals } from '../src/otlp/signal.ts'
import { decoded, payloads } from '../test/otlp/payloads.ts'
import { encodeElsewhere, type JsonValue, requests } from '../test/otlp/random-requests.ts'
import { damageBytes, splice } from './fuzz-bytes.ts'
import { type FuzzEncoding, framed, framedBadly, packBadly, packWell } from './fuzz-framing.ts'
import { changeJson, floodOfValues } from './fuzz-json.ts'
import { changeFields, floodOfFields } from './fuzz-protobuf.ts'
import { maxBodyBytes } from './fuzz-target.ts'
import { type SeededRandom, seededRandom } from './seeded-random.ts'

/** What is tried of a body: the request as protobuf, as JSON, what it is compressed with, or its frame in a gRPC call. */
export type Family = 'protobuf' | 'JSON' | 'compression' | 'gRPC frames'
export const families: readonly Family[] = ['protobuf', 'JSON', 'compression', 'gRPC frames']

/** One body, with what its sender would say of it. */
export interface FuzzBody {
  readonly family: Family
  readonly signal: Signal
  readonly format: Format
  readonly encoding: FuzzEncoding
  /** Whether it is the body of a gRPC call. */
  readonly framed: boolean
  readonly body: Buffer
  /** Nothing was done to it: it must be accepted. */
  readonly intact: boolean
}

/** A good request in both forms. */
interface Seed {
  readonly protobuf: Buffer
  readonly json: Buffer
}

const allSignals = Object.keys(signals) as Signal[]
/** So many bodies are made from the same good requests. */
const bodiesPerRound = 4000
/** Good requests that fast-check makes of each signal in a round. */
const requestsPerRound = 24
/** One of so many bodies is a megabyte of one small thing, every other one as much as is let through, as gzip. */
const floodEvery = 2000
const floodBytes = 1024 * 1024

/** Every body that can be made from a seed, by its number: the same seed and number give the same body. */
export class FuzzBodies {
  readonly #seed: number
  /** The requests of real SDKs: small ones with the first of each of their lists, and, a hundred times as long, whole ones. */
  readonly #real: ReadonlyMap<Signal, { readonly small: readonly Seed[]; readonly whole: readonly Seed[] }>
  /** Of each signal; made once, because that costs as much as many of them. */
  readonly #requests = allSignals.map((signal) => requests(signal))
  #round = -1
  #seeds = new Map<Signal, readonly Seed[]>()

  constructor(seed: number) {
    this.#seed = seed
    this.#real = realSeeds()
  }

  make(number: number): FuzzBody {
    const round = Math.floor(number / bodiesPerRound)
    if (round !== this.#round) {
      this.#round = round
      this.#seeds = this.#seedsOf(round)
    }
    const random = seededRandom(Math.imul(this.#seed, 0x9e3779b1) ^ Math.imul(number, 0x85ebca77))
    const signal = allSignals[random.between(0, allSignals.length - 1)] ?? 'traces'
    if (number % floodEvery === floodEvery - 1) return flood(random, signal)
    switch (random.between(0, 9)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return this.#protobuf(random, signal)
      case 4:
      case 5:
      case 6:
        return this.#json(random, signal)
      case 7:
      case 8:
        return this.#packed(random, signal)
      default:
        return this.#framed(random, signal)
    }
  }

  #protobuf(random: SeededRandom, signal: Signal): FuzzBody {
    const intact = random.chance(0.05)
    const seed = this.#pick(random, signal).protobuf
    const body = intact ? seed : this.#damagedProtobuf(random, signal, seed)
    return {
      family: 'protobuf',
      signal,
      format: 'protobuf',
      encoding: 'identity',
      framed: false,
      body,
      intact,
    }
  }

  #damagedProtobuf(random: SeededRandom, signal: Signal, seed: Buffer): Buffer {
    const kind = random.between(0, 9)
    if (kind < 6) return changeFields(random, signal, seed, this.#pick(random, signal).protobuf)
    if (kind < 8) return damageBytes(random, seed)
    // What belongs to another signal, whole or in part; random bytes.
    const other = this.#pick(random, allSignals[random.between(0, 3)] ?? signal).protobuf
    if (kind === 8) return random.chance(0.5) ? splice(random, seed, other) : Buffer.concat([seed, other])
    return random.chance(0.3) ? other : random.bytes(random.between(0, 40))
  }

  #json(random: SeededRandom, signal: Signal): FuzzBody {
    const intact = random.chance(0.05)
    const seed = this.#pick(random, signal).json
    const body = intact ? seed : changeJson(random, seed)
    return { family: 'JSON', signal, format: 'json', encoding: 'identity', framed: false, body, intact }
  }

  #packed(random: SeededRandom, signal: Signal): FuzzBody {
    const { format, content, intact } = this.#content(random, signal)
    const encoding = random.pick<FuzzEncoding>(['gzip', 'gzip', 'gzip', 'deflate', 'zstd'])
    const well = random.chance(0.4)
    const body = well ? packWell(random, encoding, content) : packBadly(random, encoding, content)
    return { family: 'compression', signal, format, encoding, framed: false, body, intact: intact && well }
  }

  #framed(random: SeededRandom, signal: Signal): FuzzBody {
    const { content, intact } = this.#content(random, signal, 'protobuf')
    const encoding = random.pick<FuzzEncoding>(['identity', 'identity', 'gzip', 'deflate', 'zstd'])
    const compressed = encoding !== 'identity' && random.chance(0.8)
    const packedWell = random.chance(0.7)
    const pack = packedWell ? packWell : packBadly
    const message = compressed ? pack(random, encoding, content) : content
    const framedWell = random.chance(0.4)
    const body = framedWell ? framed(message, compressed) : framedBadly(random, message, compressed)
    const all = intact && framedWell && (packedWell || !compressed)
    return { family: 'gRPC frames', signal, format: 'protobuf', encoding, framed: true, body, intact: all }
  }

  /** What is to be packed or framed: mostly good, or the other half would hardly ever be seen. */
  #content(
    random: SeededRandom,
    signal: Signal,
    only?: Format,
  ): { format: Format; content: Buffer; intact: boolean } {
    const format = only ?? (random.chance(0.2) ? 'json' : 'protobuf')
    const seed = this.#pick(random, signal)
    const intact = random.chance(0.8)
    if (format === 'json')
      return { format, content: intact ? seed.json : changeJson(random, seed.json), intact }
    const content = intact ? seed.protobuf : this.#damagedProtobuf(random, signal, seed.protobuf)
    return { format, content, intact }
  }

  #pick(random: SeededRandom, signal: Signal): Seed {
    const real = this.#real.get(signal)
    const kind = random.fraction()
    const seeds =
      (kind < 0.004 ? real?.whole : kind < 0.3 ? real?.small : undefined) ?? this.#seeds.get(signal) ?? []
    return (
      seeds[random.between(0, seeds.length - 1)] ?? { protobuf: Buffer.alloc(0), json: Buffer.from('{}') }
    )
  }

  #seedsOf(round: number): Map<Signal, readonly Seed[]> {
    const seeds = new Map<Signal, readonly Seed[]>()
    for (const [place, signal] of allSignals.entries()) {
      const seed = Math.imul(this.#seed + round, 4) + place
      const objects = fc.sample(this.#requests[place] ?? requests(signal), {
        numRuns: requestsPerRound,
        seed,
      })
      seeds.set(
        signal,
        objects.map((object) => ({
          protobuf: encodeElsewhere(signal, object),
          json: Buffer.from(JSON.stringify(object)),
        })),
      )
    }
    return seeds
  }
}

/** Much of one thing. */
function flood(random: SeededRandom, signal: Signal): FuzzBody {
  const format = random.pick<Format>(['protobuf', 'json'])
  const packed = random.chance(0.5)
  const bytes = packed ? maxBodyBytes - 64 : floodBytes
  const { body } =
    format === 'json' ? floodOfValues(random, signal, bytes) : floodOfFields(random, signal, bytes)
  if (packed) {
    const sent = gzipSync(body)
    return {
      family: 'compression',
      signal,
      format,
      encoding: 'gzip',
      framed: false,
      body: sent,
      intact: false,
    }
  }
  const family = format === 'json' ? 'JSON' : 'protobuf'
  return { family, signal, format, encoding: 'identity', framed: false, body, intact: false }
}

function realSeeds(): Map<Signal, { small: Seed[]; whole: Seed[] }> {
  const seeds = new Map<Signal, { small: Seed[]; whole: Seed[] }>()
  for (const payload of payloads) {
    const { signal } = payload
    const bytes = decoded(payload)
    const protobuf = payload.contentType === 'application/json' ? protobufFromJson(signal, bytes) : bytes
    const json = jsonFromProtobuf(signal, protobuf)
    const few = JSON.stringify(shortened(JSON.parse(json) as JsonValue, 2))
    const { small, whole } = seeds.get(signal) ?? { small: [], whole: [] }
    small.push({ protobuf: protobufFromJson(signal, Buffer.from(few)), json: Buffer.from(few) })
    whole.push({ protobuf, json: Buffer.from(json) })
    seeds.set(signal, { small, whole })
  }
  return seeds
}

function shortened(value: JsonValue, most: number): JsonValue {
  if (Array.isArray(value)) return value.slice(0, most).map((one) => shortened(one, most))
  if (typeof value !== 'object') return value
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, shortened(member, most)]))
}
