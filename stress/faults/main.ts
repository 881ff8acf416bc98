import { parseArgs } from 'node:util'
import { exitCodes } from '../../src/cli/exit-codes.ts'
import { endOnSignals, Machine } from '../machine.ts'
import { renderTable } from '../report.ts'
import { faults } from './faults.ts'
import { beginOrGoOn, killsOf, playLong } from './long.ts'
import { type FaultResult, playFault } from './run.ts'
import { WrongUsage } from './wrong-usage.ts'

const killsByDefault = 50
const killsOfLongRun = 1000
const hoursByDefault = 3
const longRunFile = '.stress-faults.json'

const usage = `usage: node stress/faults/main.ts [--json] [--only WORDS] [--list]
  Brings every fault that production knows over two ingresses and two workers with a real PostgreSQL and a real MinIO,
  under load, and then holds a ledger of every request and answer against queue, dead letters, catalog and bucket.
  Exits with 1 when a line is untrue, with 2 for wrong usage.
  --json        prints the same as JSON on standard output
  --only WORDS  plays the faults whose names have these words; not with MODE=long
  --list        prints their names
  SEED=n        repeats the requests and moments of an earlier run (default: from the clock)
  MODE=long     1,000 kills at random moments, in rounds that are each reconciled; at most HOURS (3). How far it is stands
                in .stress-faults.json, and the next run goes on there: with the same SEED, or without one

Examples:
  node stress/faults/main.ts --only ingress
  MODE=long HOURS=1 node stress/faults/main.ts
  SEED=7 node stress/faults/main.ts --json > faults.json`

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      only: { type: 'string' },
      list: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    console.log(usage)
    return 0
  }
  if (values.list) {
    for (const { name } of faults) console.log(name)
    return 0
  }
  const { SEED, MODE = '', HOURS = '' } = process.env
  if (!['', 'long'].includes(MODE)) throw new WrongUsage(`MODE=${MODE} is not long`)
  const seed = SEED === undefined || SEED === '' ? Date.now() % 1_000_000 : Number(SEED)
  if (!Number.isInteger(seed)) throw new WrongUsage(`SEED=${SEED} is not a whole number`)
  const { only } = values
  if (MODE === 'long' && only !== undefined) {
    throw new WrongUsage('MODE=long plays kills only, in rounds, and takes no --only')
  }
  const played = [...faults.entries()].filter(([, { name }]) => only === undefined || name.includes(only))
  if (played.length === 0) throw new WrongUsage(`no fault has "${only}" in its name\n${usage}`)

  const say = (line: string) => console.error(line)
  if (MODE === 'long')
    return await playLongRun(seed, SEED !== undefined && SEED !== '', HOURS, values.json, say)
  say(`seed ${seed} (repeat with SEED=${seed})`)
  const startedMs = performance.now()
  const results: FaultResult[] = []
  const machine = await Machine.start()
  try {
    for (const [place, fault] of played) {
      const progress = (line: string) => say(`  … ${line}`)
      const result = await playFault(fault, place, { machine, seed, kills: killsByDefault, progress })
      results.push(result)
      say(`${result.ok ? 'ok' : 'FAILED'}  ${result.name} (${result.seconds.toFixed(0)} s)`)
    }
  } finally {
    await machine.stop()
  }
  const seconds = (performance.now() - startedMs) / 1000
  const failed = results.filter(({ ok }) => !ok).length
  if (values.json) console.log(JSON.stringify({ seed, seconds, failed, results }, null, 2))
  else {
    console.log(`\n${tableOf(results)}\n`)
    console.log(`${results.length} faults, ${failed} FAILED, ${seconds.toFixed(0)} s in all, seed ${seed}`)
  }
  return failed === 0 ? exitCodes.ok : exitCodes.failed
}

async function playLongRun(
  seed: number,
  isSeedGiven: boolean,
  hoursGiven: string,
  asJson: boolean,
  say: (line: string) => void,
): Promise<number> {
  const hours = hoursGiven === '' ? hoursByDefault : Number(hoursGiven)
  if (!(hours > 0)) throw new WrongUsage(`HOURS=${hoursGiven} is not a number above 0`)
  const fresh = { seed, killsWanted: killsOfLongRun, rounds: [] }
  const begun = await beginOrGoOn(longRunFile, fresh, isSeedGiven)
  say(`seed ${begun.seed}, ${killsOf(begun)} of ${begun.killsWanted} kills done, at most ${hours} h`)
  const untilMs = performance.now() + hours * 3_600_000
  const machine = await Machine.start()
  try {
    const run = await playLong(begun, { machine, file: longRunFile, untilMs, say })
    const sum = (of: (result: FaultResult) => number) =>
      run.rounds.reduce((total, result) => total + of(result), 0)
    const lost = sum(({ reconciliation }) => reconciliation?.lost.length ?? 0)
    const twice = sum(({ reconciliation }) => reconciliation?.twice.length ?? 0)
    const answered = sum(({ reconciliation }) => reconciliation?.answered ?? 0)
    const failed = run.rounds.filter(({ ok }) => !ok).length
    const isWhole = killsOf(run) >= run.killsWanted
    if (asJson) {
      console.log(JSON.stringify({ ...run, isWhole, answered, lost, twice, failed }, null, 2))
      return failed === 0 && isWhole ? exitCodes.ok : exitCodes.failed
    }
    console.log(`\n${tableOf(run.rounds)}\n`)
    console.log(
      `${killsOf(run)} kills, ${answered} requests answered 200, ${lost} lost, ${twice} twice, ${failed} rounds FAILED, seed ${run.seed}`,
    )
    if (!isWhole && failed === 0) console.log('the time is over; the next run goes on from here')
    return failed === 0 && isWhole ? exitCodes.ok : exitCodes.failed
  } finally {
    await machine.stop()
  }
}

function tableOf(results: readonly FaultResult[]): string {
  const header = [
    '',
    'fault',
    '200s',
    'stored',
    'waiting',
    'dead',
    'no 200, kept',
    'no 200, nowhere',
    'lost',
    'twice',
    'objects',
    'kills',
    'seconds',
    'seen',
  ]
  const rows = results.map(({ name, ok, seen, kills, seconds, reconciliation: found }) => [
    ok ? 'ok' : 'FAILED',
    name,
    ...(found === undefined
      ? Array.from({ length: 9 }, () => '-')
      : [
          found.answered,
          found.stored,
          found.waiting,
          found.dead,
          found.unansweredKept,
          found.unansweredNowhere,
          found.lost.length,
          found.twice.length,
          found.objects,
        ].map(String)),
    String(kills),
    seconds.toFixed(0),
    seen,
  ])
  return renderTable([header, ...rows], [6, 34, 6, 6, 7, 4, 7, 7, 4, 5, 7, 5, 7, 60])
}

/** What `parseArgs` throws. */
function isUnknownOption(error: unknown): boolean {
  return String((error as { code?: unknown }).code).startsWith('ERR_PARSE_ARGS_')
}

endOnSignals()
try {
  // Not `process.exitCode`: Node 24 may wait for ever for a handle that it cannot close at its natural end.
  process.exit(await main())
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  const isUsage = error instanceof WrongUsage || isUnknownOption(error)
  process.exit(isUsage ? exitCodes.usage : exitCodes.failed)
}
