import { parseArgs } from 'node:util'
import { endOnSignals, Machine } from './machine.ts'
import { runOpenLoop } from './open-loop.ts'
import { Report } from './report.ts'
import { exactlyOnce } from './scenarios/exactly-once.ts'
import { hygiene } from './scenarios/hygiene.ts'
import { killedUnderLoad, killedWorker } from './scenarios/killed.ts'
import { lateStore, outage } from './scenarios/outage.ts'
import { drop, reject, sample } from './scenarios/overflow.ts'
import { overload, overloadedQueue } from './scenarios/overload.ts'
import { rateLimit } from './scenarios/rate-limit.ts'
import type { Scenario } from './scenarios/scenario.ts'
import { slowStore } from './scenarios/slow-store.ts'

const scenarios: readonly Scenario[] = [
  exactlyOnce,
  reject,
  drop,
  sample,
  rateLimit,
  overload,
  overloadedQueue,
  slowStore,
  killedWorker,
  outage,
  lateStore,
  killedUnderLoad,
]

const usage = `usage: node stress/verify.ts [--json] [--only NAME]
  Runs the program against a real PostgreSQL and a real MinIO and checks what it promises, line by line.
  Exits with 1 when a line is untrue.
  --json       prints the same as JSON on standard output
  --only NAME  plays one scenario: ${scenarios.map(({ name }) => name).join(', ')}
  SEED=n       repeats the requests of an earlier run (default: from the clock)
  MODE=stress  drives load as hard as the machine bears for 60 s instead`

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      only: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    console.log(usage)
    return 0
  }
  const { SEED, MODE = '' } = process.env
  const seed = SEED === undefined || SEED === '' ? Date.now() % 1_000_000 : Number(SEED)
  if (!Number.isInteger(seed)) throw new Error(`SEED=${SEED} is not a whole number`)
  if (!['', 'verify', 'stress'].includes(MODE)) throw new Error(`MODE=${MODE} is neither verify nor stress`)
  const played = scenarios.filter(({ name }) => values.only === undefined || name === values.only)
  if (played.length === 0) throw new Error(`there is no scenario ${values.only}\n${usage}`)

  // What is said on the way goes to standard error, so that --json can be piped.
  const say = (line: string) => console.error(line)
  const startedMs = performance.now()
  say(`seed ${seed} (repeat with SEED=${seed})`)
  say('  … starting PostgreSQL and MinIO')
  const machine = await Machine.start()
  const report = new Report(say)
  let figures: unknown
  try {
    if (MODE === 'stress') {
      figures = await runOpenLoop({ machine, report, seed, say })
    } else {
      for (const scenario of played) await playOne(scenario, { machine, report, seed })
    }
    await hygiene.play({ machine, report, seed })
  } finally {
    await machine.stop()
  }
  const seconds = (performance.now() - startedMs) / 1000
  const failed = report.checks.filter(({ ok }) => !ok).length
  if (values.json) {
    console.log(JSON.stringify({ seed, seconds, failed, checks: report.checks, figures }, null, 2))
  } else {
    console.log(`\n${report.table()}\n`)
    console.log(
      `${report.checks.length} lines, ${failed} FAILED, ${seconds.toFixed(0)} s in all, seed ${seed}`,
    )
  }
  return failed === 0 && report.checks.length > 0 ? 0 : 1
}

/** A scenario that breaks off is an untrue line; the others are played all the same. */
async function playOne(scenario: Scenario, context: Parameters<Scenario['play']>[0]): Promise<void> {
  try {
    await scenario.play(context)
  } catch (error) {
    const seen = error instanceof Error ? error.message : String(error)
    context.report.progress(error instanceof Error ? (error.stack ?? seen) : seen)
    context.report.check(`${scenario.name}: is played to its end`, { expected: 'yes', seen, ok: false })
  }
}

endOnSignals()
try {
  // Not `process.exitCode`: Node 24 may wait for ever for a handle that it cannot close at its natural end.
  process.exit(await main())
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exit(1)
}
