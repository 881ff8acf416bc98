import { parseArgs } from 'node:util'
import type { LoadResult } from '../load.ts'
import { loadInProcess } from '../load-process.ts'
import { endOnSignals } from '../machine.ts'
import { renderTable } from '../report.ts'
import { loadOf, smallBody } from './bodies.ts'
import { measureSaturation } from './saturation.ts'
import { startSluice, throughputSettings } from './sluice.ts'
import {
  judgeMeasure,
  type SoakSample,
  type SoakVerdict,
  type SoakWindow,
  soakMeasures,
  windowsOf,
} from './soak-judgement.ts'
import { collectSamples } from './soak-samples.ts'
import { benchPostgresSettings, startSteadyMachine } from './steady-machine.ts'
import { describeMachine, surroundingsText } from './surroundings.ts'

const everySeconds = 10
const warmUpSeconds = 30
const connections = 64
const lateSeconds = 10
/** Below it a tenth is less than what the caches and the first vacuums take to settle. */
const tellingMinutes = 20

const usage = `usage: node stress/bench/soak.ts [--minutes 30] [--share 0.5] [--json]
  Finds the peak of this machine with config/throughput.env and ${smallBody.name}, has a share of it come for half an
  hour, whatever the answers do, and looks every ${everySeconds} s: answer times, memory of each process, rows and dead rows, sizes
  of the tables of the queue and of their indexes. Says of each whether its last tenth is as its first.
  --minutes N  how long (default 30; at least 1)
  --share N    of the peak (default 0.5; above 0, at most 1)
  --json       prints the same with every sample as JSON on standard output; stress/bench/plots.ts draws it
  Exits with 0 whatever the figures say, with 1 when something could not be measured.

  examples:
  make soak
  node stress/bench/soak.ts --minutes 60 --share 0.7 --json > soak.json`

/** As it goes into the JSON. */
export interface SoakFigures {
  body: string
  peak: number
  perSecond: number
  minutes: number
  taken: number
  stored: number
  refused: number
  unsent: number
  clientLagMs: number
  samples: SoakSample[]
  windows: SoakWindow[]
  verdicts: SoakVerdict[]
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '30' },
      share: { type: 'string', default: '0.5' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    console.log(usage)
    return
  }
  const [minutes, share] = [Number(values.minutes), Number(values.share)]
  if (!(minutes >= 1 && minutes < 24 * 60)) {
    throw new Error(`--minutes ${values.minutes} is no number from 1 to below a day`)
  }
  if (!(share > 0 && share <= 1)) throw new Error(`--share ${values.share} is no number above 0, at most 1`)
  const settings = throughputSettings()
  const machine = describeMachine()
  const soak = await measureSoak({ minutes, share, settings, say: (line) => console.error(`  … ${line}`) })
  if (values.json) {
    console.log(
      JSON.stringify(
        { machine, settings, postgresSettings: benchPostgresSettings, figures: { soak } },
        null,
        2,
      ),
    )
    return
  }
  console.log(surroundingsText(machine, settings))
  console.log(`\n${soakTable(soak)}`)
}

async function measureSoak(of: {
  minutes: number
  share: number
  settings: Readonly<Record<string, string>>
  say: (line: string) => void
}): Promise<SoakFigures> {
  const { minutes, share, settings, say } = of
  const body = smallBody
  const machine = await startSteadyMachine(say)
  try {
    const first = await startSluice(machine, 'soak-peak', settings)
    let peak: number
    try {
      peak = (await measureSaturation(first, body)).requestsPerSecond
    } finally {
      await first.close()
    }
    const perSecond = Math.round(peak * share)
    const seconds = minutes * 60
    const sluice = await startSluice(machine, 'soak', settings)
    try {
      const run = (forSeconds: number) =>
        loadInProcess(
          loadOf(body, { url: sluice.url, seconds: forSeconds, connections, perSecond, lateSeconds }),
        )
      say(`the peak is ${peak.toFixed(0)} requests/s; ${warmUpSeconds} s of warm-up at ${perSecond}/s`)
      const warmUp = await run(warmUpSeconds)
      await sluice.settle()
      const over = new AbortController()
      const onSample = (sample: SoakSample) => say(describeSample(sample, seconds))
      const sampling = collectSamples(
        { sql: sluice.stage.sql, pids: sluice.pids, everySeconds, onSample },
        over.signal,
      )
      const running = run(seconds).finally(() => over.abort())
      const [result, looks] = await Promise.all([running, sampling])
      // Once the load is over, what is looked at is another thing.
      const samples = looks.filter((sample) => sample.seconds <= seconds + 1)
      const taken = takenBy(warmUp) + takenBy(result)
      await sluice.drained(taken)
      const [row] = await sluice.stage.sql<{ requests: number }[]>`
        SELECT coalesce(sum(requests), 0)::float8 AS requests FROM stored_object`
      const windows = windowsOf(result, { perSecond, windowSeconds: everySeconds })
      return {
        body: body.name,
        peak,
        perSecond,
        minutes,
        taken,
        stored: row?.requests ?? 0,
        refused: result.sent - takenBy(result),
        unsent: result.unsent,
        clientLagMs: result.clientLagMicroseconds / 1000,
        samples,
        windows,
        verdicts: soakMeasures(samples, windows, perSecond).map(judgeMeasure),
      }
    } finally {
      await sluice.close()
    }
  } finally {
    await machine.stop()
  }
}

function takenBy({ statuses }: LoadResult): number {
  return statuses.reduce((count, status) => count + (status === 200 ? 1 : 0), 0)
}

function describeSample(sample: SoakSample, seconds: number): string {
  const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`
  const memory = Object.entries(sample.residentBytes)
    .map(([name, bytes]) => `${name} ${megabytes(bytes)}`)
    .join(', ')
  const tables = Object.values(sample.sizes).reduce((sum, bytes) => sum + bytes, 0)
  return (
    `${sample.seconds.toFixed(0)} of ${seconds} s: ${sample.pendingRows} rows wait, ${sample.deadRows} are dead, ` +
    `tables and indexes of the queue ${megabytes(tables)}; ${memory}`
  )
}

function soakTable(soak: SoakFigures): string {
  const rows = soak.verdicts.map((one) => [
    one.isFlat === undefined ? '' : one.isFlat ? 'flat' : 'GROWS',
    one.what,
    one.unit,
    short(one.first),
    short(one.last),
    one.lastMax === undefined ? '' : short(one.lastMax),
    `${one.slopePerHour < 0 ? '' : '+'}${short(one.slopePerHour)}`,
  ])
  const header = ['', 'what', '', 'first tenth', 'last tenth', 'may be', 'an hour']
  const { minutes, perSecond, peak, taken, stored, refused, unsent } = soak
  return [
    `${minutes} minutes of ${soak.body} at ${perSecond} requests/s, ${((100 * perSecond) / peak).toFixed(0)} % of ${peak.toFixed(0)}`,
    `${taken} answered with 200, ${stored} stored, ${refused} answered otherwise, ${unsent} never sent; client late by at most ${soak.clientLagMs.toFixed(0)} ms`,
    ...(minutes < tellingMinutes
      ? [`A run of less than ${tellingMinutes} minutes says little: what is new grows at first.`]
      : []),
    '',
    renderTable([header, ...rows], [5, 44, 5, 12, 12, 12, 12]),
  ].join('\n')
}

function short(value: number): string {
  return Math.abs(value) < 100 ? value.toFixed(1) : value.toFixed(0)
}

endOnSignals()
try {
  await main()
  process.exit(0)
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exit(1)
}
