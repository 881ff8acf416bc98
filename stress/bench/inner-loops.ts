import { readFileSync } from 'node:fs'
import path from 'node:path'
import { deflateSync, gunzipSync, zstdCompressSync } from 'node:zlib'
import { Bench } from 'tinybench'
import { pack, unpack } from '../../src/otlp/compression.ts'
import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import type { Signal } from '../../src/otlp/signal.ts'
import { decodeSummary, encodeSummary } from '../../src/otlp/summary.ts'
import { walk } from '../../src/otlp/walk.ts'
import { encodeRows, type StagedRow } from '../../src/queue/copy-format.ts'
import { objectsOfBatch } from '../../src/sink/object.ts'

const payloads = path.join(import.meta.dirname, '../../test/payloads')
const bodyMax = 20 * 1024 * 1024
const batchId = '019ab5e0-0000-7000-8000-000000000000'

export interface LoopFigure {
  name: string
  /** The mean of all turns, and the median of the turns of the best round: others who use the core only add to it. */
  meanMicroseconds: number
  bestMicroseconds: number
  turns: number
  /** Spans, data points or log records, and bytes of a turn. */
  items: number
  bytes: number
}

interface Loop {
  name: string
  items: number
  bytes: number
  turn: () => unknown
}

/** Rounds that all loops take in turns, so that a moment in which others use the core does not fall on one of them alone. */
const ROUNDS = 7

/** Times each inner loop on a request's way, for 0.7 s in all. */
export async function benchLoops(say: (line: string) => void): Promise<LoopFigure[]> {
  const timed = loops().map((loop) => ({ loop, sumMs: 0, turns: 0, bestMs: Number.POSITIVE_INFINITY }))
  for (let round = 0; round < ROUNDS; round++) {
    for (const figure of timed) {
      const { name, turn } = figure.loop
      const bench = new Bench({ time: 100, warmupTime: round === 0 ? 150 : 20 })
      bench.add(name, async () => {
        await turn()
      })
      const [task] = await bench.run()
      const result = task?.result
      if (result?.state !== 'completed') throw new Error(`${name} did not run: ${JSON.stringify(result)}`)
      const { mean, p50, samplesCount } = result.latency
      figure.sumMs += mean * samplesCount
      figure.turns += samplesCount
      figure.bestMs = Math.min(figure.bestMs, p50)
    }
    say(`  … round ${round + 1} of ${ROUNDS}`)
  }
  return timed.map(({ loop: { name, items, bytes }, sumMs, turns, bestMs }) => ({
    name,
    meanMicroseconds: (sumMs / turns) * 1000,
    bestMicroseconds: bestMs * 1000,
    turns,
    items,
    bytes,
  }))
}

function loops(): Loop[] {
  const read = (name: string) => readFileSync(path.join(payloads, name))
  const gzipped = read('bench/spans-100.pb.gz')
  const spans = gunzipSync(gzipped)
  const small = read('bench/spans-10.pb.gz')
  const deflated = deflateSync(spans)
  const zstd = zstdCompressSync(spans)
  const json = read('js-traces.json')
  const summary = walk('traces', spans).summary
  const encodedSummary = encodeSummary(summary)
  const walks = [
    ['js-traces.pb', 'traces'],
    ['js-metrics.pb', 'metrics'],
    ['js-logs.pb', 'logs'],
    ['bench/spans-100.pb', 'traces'],
  ] as const
  const row: StagedRow = {
    signal: 'traces',
    tenant: 'default',
    encoding: 'gzip',
    items: 100,
    unpackedBytes: spans.length,
    requestId: '7d1cf2a0-6f0e-4b8e-9f5a-2d3a1f6c9b10',
    summary: encodedSummary,
    payload: gzipped,
  }
  const batchRows = (count: number) =>
    Array.from({ length: count }, (_, place) => ({
      id: BigInt(place + 1),
      tenant: 'default',
      signal: 'traces' as Signal,
      encoding: 'gzip' as const,
      items: 100,
      bytes: gzipped.length,
      summary,
      payload: gzipped,
    }))
  const rows = (count: number) => Array.from({ length: count }, () => row)
  const [rows64, batch25, batch200] = [rows(64), batchRows(25), batchRows(200)]
  return [
    ...walks.map(([name, signal]) => {
      const body = read(name)
      const { items } = walk(signal, body)
      return { name: `walk ${name}`, items, bytes: body.length, turn: () => walk(signal, body) }
    }),
    {
      name: 'JSON to protobuf, js-traces.json',
      items: 100,
      bytes: json.length,
      turn: () => protobufFromJson('traces', json),
    },
    ...(
      [
        ['gzip', gzipped],
        ['deflate', deflated],
        ['zstd', zstd],
      ] as const
    ).map(([encoding, body]) => ({
      name: `unpack ${encoding}, 100 spans`,
      items: 100,
      bytes: spans.length,
      turn: () => unpack(encoding, body, bodyMax),
    })),
    { name: 'pack gzip, 100 spans', items: 100, bytes: spans.length, turn: () => pack(spans) },
    {
      name: 'summary to bytes and back',
      items: 100,
      bytes: encodedSummary.length,
      turn: () => decodeSummary(encodeSummary(summary)),
    },
    ...(
      [
        ['10 spans gzip', small, 10],
        ['100 spans gzip', gzipped, 100],
      ] as const
    ).map(([name, body, items]) => ({
      name: `a request up to its row, ${name}`,
      items,
      bytes: body.length,
      turn: async () => {
        const { bytes } = await unpack('gzip', body, bodyMax)
        return encodeSummary(walk('traces', bytes).summary)
      },
    })),
    {
      name: 'COPY framing of 64 rows, 100 spans gzip',
      items: 6_400,
      bytes: 64 * gzipped.length,
      turn: () => encodeRows(rows64).length,
    },
    ...[batch25, batch200].map((batch) => ({
      name: `object of ${batch.length} rows, 100 spans gzip`,
      items: batch.length * 100,
      bytes: batch.length * gzipped.length,
      turn: () => objectsOfBatch(batchId, batch),
    })),
  ]
}
