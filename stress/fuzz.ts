import os from 'node:os'
import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'
import { families } from './fuzz-bodies.ts'
import { type ListedRule, listedRules, properties } from './fuzz-properties.ts'
import { type FamilyTally, type FuzzTally, joinTallies, measureAlone, type SlowBody } from './fuzz-run.ts'
import type { FuzzNews } from './fuzz-worker.ts'
import { renderTable } from './report.ts'

const usage = `usage: node stress/fuzz.ts [--bodies N] [--seed N] [--from N] [--workers N] [--json]
  Tries bodies that are wrong in every way against the ingress, and holds what it says of them against protobufjs and
  opentelemetry-proto for Python. Exits with 1 when something is untrue; then it prints the body, as small as it could make it.
  --bodies N   how many (default 1000000)
  --seed N     what they are made from (default: from the clock); the same seed gives the same bodies
  --from N     the number of the first (default 0)
  --workers N  threads, each with a process of Python (default: as many as there are processors, 2 at most)
  --json       prints the figures as JSON on standard output
examples:
  node stress/fuzz.ts --bodies 10000
  node stress/fuzz.ts --seed 7 --from 123456 --bodies 1 --workers 1    tries one body of an earlier run again`

/** What may be left on the heaps of all threads after a collection, beyond what was there when a tenth was tried. */
const heapGrowthMax = 32 * 1024 * 1024
/** The same for all memory of the process. */
const residentGrowthMax = 256 * 1024 * 1024
const progressMs = 2000
/** The longest that a megabyte may hold the event loop. */
const holdMsMax = 50

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      bodies: { type: 'string', default: '1000000' },
      seed: { type: 'string', default: String(Date.now() % 1_000_000) },
      from: { type: 'string', default: '0' },
      workers: { type: 'string', default: String(Math.min(2, os.availableParallelism())) },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    console.log(usage)
    return 0
  }
  const bodies = whole('bodies', values.bodies, 1)
  const seed = whole('seed', values.seed, 0)
  const from = whole('from', values.from, 0)
  const workers = Math.min(whole('workers', values.workers, 1), bodies)
  console.error(`seed ${seed} (repeat with --seed ${seed})`)

  const startedMs = performance.now()
  const seconds = () => (performance.now() - startedMs) / 1000
  const tried = new Array<number>(workers).fill(0)
  const total = () => tried.reduce((sum, one) => sum + one, 0)
  let earlyResidentBytes = 0
  const progress = setInterval(() => {
    const { rss } = process.memoryUsage()
    if (earlyResidentBytes === 0 && total() > bodies / 10) earlyResidentBytes = rss
    const rate = total() / seconds()
    console.error(
      `  … ${total()} of ${bodies} bodies, ${rate.toFixed(0)} a second, ${megabytes(rss)} resident`,
    )
  }, progressMs)
  let tally: FuzzTally
  try {
    const share = Math.ceil(bodies / workers)
    const parts = Array.from({ length: workers }, (_, place) => {
      const start = place * share
      const options = { seed, from: from + start, bodies: Math.min(share, bodies - start) }
      return runWorker(options, (count) => {
        tried[place] = count
      })
    })
    tally = joinTallies(await Promise.all(parts))
  } finally {
    clearInterval(progress)
  }
  const alone = await measureAlone(seed, tally.slowest)
  const held = alone.filter(({ ms }) => ms > holdMsMax)
  const residentGrowth = earlyResidentBytes === 0 ? 0 : process.memoryUsage().rss - earlyResidentBytes
  const heapGrowth = tally.heapBytes.late - tally.heapBytes.early
  // Too few bodies say nothing: what is made once is made among them.
  const grown = bodies >= 100_000 && (heapGrowth > heapGrowthMax || residentGrowth > residentGrowthMax)
  const failed = tally.violated > 0 || grown || held.length > 0
  const figures = {
    seed,
    bodies,
    seconds: seconds(),
    bodiesPerSecond: bodies / seconds(),
    residentGrowth,
    heapGrowth,
  }
  if (values.json) console.log(JSON.stringify({ ...figures, failed, ...tally, slowest: alone }, null, 2))
  else console.log(report({ ...tally, slowest: alone }, figures))
  if (grown)
    console.error(
      `FAILED  memory grew: ${megabytes(heapGrowth)} of heap, ${megabytes(residentGrowth)} resident`,
    )
  for (const slow of held) console.error(`FAILED  the event loop was held: ${holdOf(slow)}`)
  for (const { property, detail, number, ...body } of tally.violations) {
    console.error(
      `\nFAILED  ${properties[property]}\n  ${detail}\n  body ${number} of seed ${seed}: ${JSON.stringify(body)}`,
    )
  }
  if (tally.violated > tally.violations.length) console.error(`\n${tally.violated} FAILED in all`)
  return failed ? 1 : 0
}

function whole(name: string, text: string, min: number): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < min)
    throw new Error(`--${name}=${text} is not a whole number from ${min} on`)
  return value
}

/** Resolves with what the worker found; rejects when it throws or ends without a word. */
function runWorker(
  options: { seed: number; from: number; bodies: number },
  onTried: (count: number) => void,
): Promise<FuzzTally> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('fuzz-worker.ts', import.meta.url), { workerData: options })
    worker.on('message', (news: FuzzNews) => {
      if ('tally' in news) resolve(news.tally)
      else onTried(news.tried)
    })
    worker.on('error', reject)
    worker.on('exit', (code) => reject(new Error(`a worker ended with ${code} before it was done`)))
  })
}

function report(
  tally: FuzzTally,
  figures: {
    bodies: number
    seconds: number
    bodiesPerSecond: number
    residentGrowth: number
    heapGrowth: number
  },
): string {
  const listed = (Object.keys(listedRules) as ListedRule[]).map((rule) => [
    rule,
    String(tally.listed[rule] ?? 0),
    listedRules[rule],
  ])
  return [
    renderTable(
      [
        ['bodies', 'tried', 'accepted', 'of which repaired', 'refused', 'by rule'],
        ...families.map((family) => familyRow(family, tally.families[family])),
      ],
      [12, 9, 9, 18, 9, 100],
    ),
    '\nRefused although Python decodes them, by listed rule\n',
    renderTable([['rule', 'bodies', 'reason'], ...listed], [12, 7, 90]),
    `\n${figures.bodies} bodies in ${figures.seconds.toFixed(0)} s, ${figures.bodiesPerSecond.toFixed(0)} a second; ${tally.violated} FAILED`,
    `event loop: ${holdOf(tally.slowest[0])} (limit ${holdMsMax} ms a megabyte; the least of several tries alone, in CPU time)`,
    `memory: ${megabytes(figures.heapGrowth)} more on the heaps at the end than after a tenth, ${megabytes(figures.residentGrowth)} more resident`,
  ].join('\n')
}

function holdOf(slowest: SlowBody | undefined): string {
  if (slowest === undefined) return 'nothing held it for 10 ms'
  const { ms, number, family, bytes, middle } = slowest
  return `${ms.toFixed(1)} ms at worst, by body ${number} (${family}, ${bytes} bytes, in its middle ${JSON.stringify(middle)})`
}

function familyRow(family: string, { tried, accepted, repaired, refused }: FamilyTally): string[] {
  const rules = Object.entries(refused).toSorted(([, one], [, other]) => other - one)
  return [
    family,
    String(tried),
    String(accepted),
    String(repaired),
    String(tried - accepted),
    rules.map(([rule, count]) => `${rule} ${count}`).join(', '),
  ]
}

function megabytes(bytes: number): string {
  return `${(bytes / 1024 ** 2).toFixed(0)} MiB`
}

try {
  process.exitCode = await main()
} catch (error) {
  console.error(error instanceof Error ? error.stack : error)
  process.exitCode = 1
}
