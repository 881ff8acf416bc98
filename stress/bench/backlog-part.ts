import { systemClock } from '../../src/foundation/clock.ts'
import { decodeSummary } from '../../src/otlp/summary.ts'
import { parseDatabaseUrl } from '../../src/postgres/location.ts'
import { ensureTraceIndexPartitions } from '../../src/postgres/partitions.ts'
import { closePool, openPool } from '../../src/postgres/pool.ts'
import { type RelayQueueOptions, relayQueue } from '../../src/queue/relay-queue.ts'
import { objectsOfBatch } from '../../src/sink/object.ts'
import type { Stage } from '../machine.ts'
import { type Bench, type BenchPart, median } from './bench.ts'
import { smallBody } from './bodies.ts'
import { fillQueue } from './fill-queue.ts'
import { startSteadyMachine } from './steady-machine.ts'

const batches = 40
const warmUpBatches = 5
const rowsMax = 200
const flatWithin = 0.2

interface BacklogFigure {
  rows: number
  lookMicroseconds: number
  claimMicroseconds: number
  settleMicroseconds: number
}

/** What a look, a claim and a settle cost a row, by how many rows wait. */
export const backlog: BenchPart = {
  name: 'backlog',
  async measure(bench) {
    const sizes = bench.isQuick ? [0, 100_000] : [0, 100_000, 1_000_000]
    const machine = await startSteadyMachine(bench.say)
    const measured: BacklogFigure[] = []
    try {
      for (let round = 1; round <= bench.rounds; round++) {
        for (const size of sizes) {
          const stage = await machine.stage(`backlog-${size}-${round}`)
          try {
            const figure = await measureSize(bench, stage, size)
            measured.push(figure)
            bench.say(
              `round ${round} of ${bench.rounds}, ${size} rows wait: ` +
                `${figure.claimMicroseconds.toFixed(1)} µs a row to claim, ` +
                `${figure.settleMicroseconds.toFixed(1)} µs to settle`,
            )
          } finally {
            await stage.dispose()
          }
        }
      }
    } finally {
      await machine.stop()
    }
    const figures = sizes.map((size) => medianOf(measured.filter(({ rows }) => rows === size)))
    return {
      tables: [
        {
          title: `The statements of a worker by backlog: batches of ${rowsMax} requests of ${smallBody.name}, medians of ${batches} and of ${bench.rounds} rounds in turns`,
          rows: [
            ['rows waiting', 'look, µs', 'claim, µs a row', 'settle, µs a row'],
            ...figures.map((one) => [
              String(one.rows),
              one.lookMicroseconds.toFixed(0),
              one.claimMicroseconds.toFixed(1),
              one.settleMicroseconds.toFixed(1),
            ]),
          ],
          widths: [14, 10, 16, 16],
        },
      ],
      goals: [goalOf('claim', figures, 'claimMicroseconds'), goalOf('settle', figures, 'settleMicroseconds')],
      figures,
    }
  },
}

function medianOf(rounds: readonly BacklogFigure[]): BacklogFigure {
  const of = (key: keyof BacklogFigure) => median(rounds.map((one) => one[key])) ?? 0
  return {
    rows: of('rows'),
    lookMicroseconds: of('lookMicroseconds'),
    claimMicroseconds: of('claimMicroseconds'),
    settleMicroseconds: of('settleMicroseconds'),
  }
}

function goalOf(
  what: string,
  figures: readonly BacklogFigure[],
  key: 'claimMicroseconds' | 'settleMicroseconds',
) {
  const values = figures.map((one) => one[key])
  const [least, most] = [Math.min(...values), Math.max(...values)]
  return {
    what: `${what}, µs a row with ${figures.map(({ rows }) => rows).join(', ')} rows waiting`,
    wanted: `flat within ${flatWithin * 100} %`,
    seen: `${values.map((value) => value.toFixed(1)).join(', ')}`,
    isReached: most <= least * (1 + flatWithin),
  }
}

async function measureSize(bench: Bench, stage: Stage, rows: number): Promise<BacklogFigure> {
  await fillQueue(stage.sql, smallBody, rows + (warmUpBatches + batches) * rowsMax, bench.say)
  const pool = openPool({
    url: parseDatabaseUrl(stage.databaseUrl),
    name: 'bench',
    connections: 1,
    statementTimeoutMs: 60_000,
    planCacheMode: 'force_generic_plan',
  })
  try {
    await ensureTraceIndexPartitions(pool)
    return {
      rows,
      ...(await measureBatches({
        claims: pool,
        settles: pool,
        owner: 'bench',
        leaseSeconds: 60,
        clock: systemClock,
      })),
    }
  } finally {
    await closePool(pool, 1_000)
  }
}

async function measureBatches(options: RelayQueueOptions): Promise<Omit<BacklogFigure, 'rows'>> {
  const queue = relayQueue(options)
  const [looks, claims, settles]: [number[], number[], number[]] = [[], [], []]
  for (let place = 0; place < warmUpBatches + batches; place++) {
    const startedMs = systemClock.monotonicMs()
    await queue.countPending(rowsMax)
    const lookedMs = systemClock.monotonicMs()
    const batch = await queue.claimBatch({ rowsMax, bytesMax: 2 ** 30, firstAnySize: true })
    const claimedMs = systemClock.monotonicMs()
    if (batch?.rows.length !== rowsMax)
      throw new Error(`a claim of ${batch?.rows.length} rows, not ${rowsMax}`)
    const rows = batch.rows.map((row) => ({ ...row, summary: decodeSummary(row.summary) }))
    const entries = objectsOfBatch(batch.batchId, rows).map((object) => ({ ...object, bucket: 'bench' }))
    const settlesMs = systemClock.monotonicMs()
    if ((await queue.completeBatch(batch, entries)) !== 'settled') throw new Error('a settle matched nothing')
    if (place < warmUpBatches) continue
    looks.push((lookedMs - startedMs) * 1000)
    claims.push(((claimedMs - lookedMs) * 1000) / rowsMax)
    settles.push(((systemClock.monotonicMs() - settlesMs) * 1000) / rowsMax)
  }
  return {
    lookMicroseconds: median(looks) ?? 0,
    claimMicroseconds: median(claims) ?? 0,
    settleMicroseconds: median(settles) ?? 0,
  }
}
