import { setTimeout as wait } from 'node:timers/promises'
import postgres from 'postgres'
import { loadInProcess } from '../load-process.ts'
import type { BenchPart } from './bench.ts'
import { loadOf, smallBody } from './bodies.ts'
import { startSluice } from './sluice.ts'
import { startSteadyMachine } from './steady-machine.ts'

const connections = 32
const plainSeconds = 60
const heldSeconds = 600
const stretchSeconds = 60
const quickSeconds = 20
const shareWanted = 0.8
const lookEveryMs = 5_000

interface Sample {
  seconds: number
  storedPerSecond: number
}

interface SnapshotFigures {
  plainPerSecond: number
  heldPerSecond: number
  /** Of the last tenth of the time with the snapshot, when most dead rows lie about. */
  lastPerSecond: number
  samples: Sample[]
}

/** The rate while another session holds a snapshot, so that no row that is done with can be cleaned up. */
export const snapshot: BenchPart = {
  name: 'snapshot',
  async measure({ say, isQuick, settings }) {
    const body = smallBody
    const machine = await startSteadyMachine(say)
    const sluice = await startSluice(machine, 'snapshot', settings)
    try {
      const run = async (seconds: number, samples: Sample[]): Promise<number> => {
        await sluice.settle()
        const startedMs = performance.now()
        const before = await storedRequests(sluice.stage.sql)
        const over = new AbortController()
        const looking = sampleStored(sluice.stage.sql, startedMs, samples, over.signal)
        let sent = 0
        // One load after the other: the client remembers each of its requests.
        for (let left = seconds; left > 0; left -= stretchSeconds) {
          const stretch = { url: sluice.url, seconds: Math.min(left, stretchSeconds), connections }
          sent += (await loadInProcess(loadOf(body, stretch))).sent
        }
        await sluice.drained(sent)
        over.abort()
        await looking
        return ((await storedRequests(sluice.stage.sql)) - before) / ((performance.now() - startedMs) / 1000)
      }
      await run(5, [])
      const plainPerSecond = await run(isQuick ? quickSeconds : plainSeconds, [])
      say(`${plainPerSecond.toFixed(0)} requests/s without a snapshot`)
      const held = postgres(sluice.stage.databaseUrl, { max: 1, onnotice: () => undefined })
      const samples: Sample[] = []
      const seconds = isQuick ? quickSeconds : heldSeconds
      let heldPerSecond = 0
      say(`${seconds} s with a snapshot`)
      await held
        .begin('ISOLATION LEVEL REPEATABLE READ READ ONLY', async (sql) => {
          await sql`SELECT count(*) FROM stored_object`
          heldPerSecond = await run(seconds, samples)
        })
        .finally(() => held.end({ timeout: 1 }))
      const last = samples.slice(-Math.max(1, Math.floor(samples.length / 10)))
      const lastPerSecond = last.reduce((sum, one) => sum + one.storedPerSecond, 0) / Math.max(1, last.length)
      const figures: SnapshotFigures = { plainPerSecond, heldPerSecond, lastPerSecond, samples }
      return {
        tables: [],
        goals: [
          {
            what: `${body.name}, with another session's snapshot held for ${seconds} s`,
            wanted: `at least ${shareWanted * 100} % of the rate without it`,
            seen: `${((100 * heldPerSecond) / plainPerSecond).toFixed(0)} % (${heldPerSecond.toFixed(0)}/s, at the end ${lastPerSecond.toFixed(0)}/s)`,
            isReached: heldPerSecond >= shareWanted * plainPerSecond,
          },
        ],
        figures,
      }
    } finally {
      await sluice.close()
      await machine.stop()
    }
  },
}

type Database = Awaited<ReturnType<typeof startSluice>>['stage']['sql']

async function storedRequests(sql: Database): Promise<number> {
  const [row] = await sql<{ requests: number }[]>`SELECT sum(requests)::float8 AS requests FROM stored_object`
  return row?.requests ?? 0
}

async function sampleStored(
  sql: Database,
  startedMs: number,
  samples: Sample[],
  over: AbortSignal,
): Promise<void> {
  let last = { requests: await storedRequests(sql), ms: performance.now() }
  while (!over.aborted) {
    await wait(lookEveryMs, undefined, { signal: over }).catch(() => undefined)
    if (over.aborted) return
    const now = { requests: await storedRequests(sql), ms: performance.now() }
    samples.push({
      seconds: (now.ms - startedMs) / 1000,
      storedPerSecond: ((now.requests - last.requests) * 1000) / (now.ms - last.ms),
    })
    last = now
  }
}
