import { loadInProcess } from '../load-process.ts'
import type { Stage } from '../machine.ts'
import { until } from '../waiting.ts'
import { type BenchPart, median } from './bench.ts'
import { loadOf, smallBody } from './bodies.ts'
import { fillQueue } from './fill-queue.ts'
import { measureSaturation } from './saturation.ts'
import { startSluice } from './sluice.ts'
import { startSteadyMachine } from './steady-machine.ts'

const backlogRows = 1_000_000
const quickRows = 50_000
const seconds = 60
const quickSeconds = 15
const warmUpSeconds = 5
const connections = 64
const lateSeconds = 10
const p99MsWanted = 50
const lookEveryMs = 2_000

interface Sample {
  seconds: number
  rows: number
}

/** A queue of a million rows after an outage, while half of what the system bears at the peak goes on coming. */
export const drain: BenchPart = {
  name: 'drain',
  async measure(bench) {
    const { say, isQuick, settings } = bench
    const body = smallBody
    const machine = await startSteadyMachine(say)
    try {
      const first = await startSluice(machine, 'drain-peak', settings)
      let peak: number
      try {
        peak = (await measureSaturation(first, body)).requestsPerSecond
      } finally {
        await first.close()
      }
      const perSecond = Math.round(peak / 2)
      const rows = isQuick ? quickRows : backlogRows
      // The backlog is there before any worker is.
      const sluice = await startSluice(
        machine,
        'drain',
        { ...settings, STAGING_MAX_BACKLOG: '10000000' },
        (stage) => fillQueue(stage.sql, body, rows, say),
      )
      try {
        say(`${rows} rows wait, ${perSecond} requests a second come`)
        const come = (forSeconds: number) =>
          loadInProcess(
            loadOf(body, { url: sluice.url, connections, perSecond, lateSeconds, seconds: forSeconds }),
          )
        // Senders were there all through the outage.
        await come(warmUpSeconds)
        const samples: Sample[] = []
        const startedMs = performance.now()
        const over = new AbortController()
        const looking = sampleRows(sluice.stage, startedMs, samples, over.signal)
        const result = await come(isQuick ? quickSeconds : seconds)
        over.abort()
        await looking
        const slopes = samples.slice(1).map((one, place) => {
          const before = samples[place] ?? one
          return (before.rows - one.rows) / Math.max(0.001, one.seconds - before.seconds)
        })
        const shrinksBy = median(slopes.filter((_, place) => (samples[place]?.rows ?? 0) > rows / 100)) ?? 0
        const p99Ms = result.latencyMicroseconds.p99 / 1000
        return {
          tables: [
            {
              title: `A backlog of ${rows} requests while ${perSecond} a second come`,
              rows: [
                ['after', 'rows waiting'],
                ...samples
                  .filter((_, place) => place % 5 === 0)
                  .map((one) => [`${one.seconds.toFixed(0)} s`, String(one.rows)]),
              ],
              widths: [8, 12],
            },
          ],
          goals: [
            {
              what: `drain of ${rows} rows while ingesting at half the peak`,
              wanted: 'faster than it fills',
              seen: `${perSecond}/s come, ${(perSecond + shrinksBy).toFixed(0)}/s go`,
              isReached: shrinksBy > 0,
            },
            {
              what: 'answer p99 meanwhile',
              wanted: `under ${p99MsWanted} ms`,
              seen: `${p99Ms.toFixed(1)} ms${result.unsent === 0 ? '' : `, ${result.unsent} never sent`}`,
              isReached: p99Ms < p99MsWanted && result.unsent === 0,
            },
          ],
          figures: { peak, perSecond, shrinksBy, p99Ms, unsent: result.unsent, samples },
        }
      } finally {
        await sluice.close()
      }
    } finally {
      await machine.stop()
    }
  },
}

async function sampleRows(
  stage: Stage,
  startedMs: number,
  samples: Sample[],
  over: AbortSignal,
): Promise<void> {
  const look = async () => {
    const [row] = await stage.sql<{ rows: number }[]>`
      SELECT count(*)::int AS rows FROM ingestion_queue WHERE batch_id IS NULL`
    samples.push({ seconds: (performance.now() - startedMs) / 1000, rows: row?.rows ?? 0 })
  }
  await look()
  let dueMs = performance.now() + lookEveryMs
  await until(async () => {
    if (over.aborted) return true
    if (performance.now() < dueMs) return false
    dueMs += lookEveryMs
    await look()
    return false
  }, Number.POSITIVE_INFINITY)
}
