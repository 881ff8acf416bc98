import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { endOnSignals } from '../machine.ts'
import { renderTable } from '../report.ts'
import { backlog } from './backlog-part.ts'
import { type Bench, type BenchPart, judge, type PartResult } from './bench.ts'
import { benchBodies } from './bodies.ts'
import { collectorProgram } from './collector.ts'
import { drain } from './drain-part.ts'
import { idle } from './idle-part.ts'
import { innerLoops } from './inner-loops-part.ts'
import { ladder } from './ladder-part.ts'
import { rates } from './rates-part.ts'
import { throughputSettings } from './sluice.ts'
import { snapshot } from './snapshot-part.ts'
import { benchPostgresSettings } from './steady-machine.ts'
import { describeMachine, surroundingsText } from './surroundings.ts'

const parts: readonly BenchPart[] = [innerLoops, rates, ladder, backlog, snapshot, drain, idle]

const usage = `usage: node stress/bench/main.ts [--only PART]... [--body NAME] [--rounds N] [--quick] [--profile DIR] [--json] [--default-settings] [--set NAME=VALUE]...
  Measures the inner loops and whole processes on this machine, with config/throughput.env, and says which of the
  goals are reached. A goal that is missed stays in the table as missed.
  PEER=DIR            compares with the OpenTelemetry Collector whose program is DIR/otelcol-peer, in turns in one run
  --only PART         measures one part, and may be given again: ${parts.map(({ name }) => name).join(', ')}
  --body NAME         of the rates only those of one body: ${benchBodies.map(({ name }) => name).join(', ')}
  --rounds N          how often each comparison is repeated (default 3); figures are medians
  --quick             one round, and nothing that takes longer than a minute
  --profile DIR       leaves a CPU profile of each process of ours there (Node.js, --cpu-prof), which costs time
  --default-settings  measures the defaults instead of config/throughput.env
  --set NAME=VALUE    with this setting changed, and may be given again: --set PROCESSES=2
  --json              prints the same as JSON on standard output
  Exits with 0 whatever the figures say, with 1 when something could not be measured.`

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      only: { type: 'string', multiple: true },
      body: { type: 'string' },
      rounds: { type: 'string', default: '3' },
      quick: { type: 'boolean', default: false },
      profile: { type: 'string' },
      'default-settings': { type: 'boolean', default: false },
      set: { type: 'string', multiple: true, default: [] },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    console.log(usage)
    return
  }
  const played = parts.filter(({ name }) => values.only === undefined || values.only.includes(name))
  const unknown = values.only?.find((wanted) => !parts.some(({ name }) => name === wanted))
  if (unknown !== undefined) throw new Error(`there is no part ${unknown}\n${usage}`)
  const rounds = values.quick ? 1 : Number(values.rounds)
  if (!Number.isInteger(rounds) || rounds < 1)
    throw new Error(`--rounds ${values.rounds} is no whole number above 0`)
  if (values.body !== undefined && !benchBodies.some(({ name }) => name === values.body)) {
    throw new Error(`there is no body ${values.body}\n${usage}`)
  }
  const { PEER = '' } = process.env
  const bench: Bench = {
    say: (line) => console.error(`  … ${line}`),
    rounds,
    isQuick: values.quick,
    settings: {
      ...(values['default-settings'] ? defaultSettings : throughputSettings()),
      ...Object.fromEntries(values.set.map((setting) => setting.split(/=(.*)/s, 2))),
      ...(values.profile !== undefined && {
        NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${path.resolve(values.profile)}`,
      }),
    },
    bodies: benchBodies.filter(({ name }) => values.body === undefined || name === values.body),
    collector: PEER === '' ? undefined : collectorProgram(PEER),
  }
  const machine = describeMachine()
  const [busy = 0] = os.loadavg()
  if (busy > os.cpus().length / 4) {
    bench.say(
      `others use this machine (load ${busy.toFixed(1)}): every figure will be worse than it could be`,
    )
  }
  const results: Record<string, PartResult> = {}
  for (const part of played) results[part.name] = await part.measure(bench)
  const goals = Object.values(results).flatMap((result) => result.goals)
  if (values.json) {
    const figures = Object.fromEntries(
      Object.entries(results).map(([name, result]) => [name, result.figures]),
    )
    const all = { machine, settings: bench.settings, postgresSettings: benchPostgresSettings, goals, figures }
    console.log(JSON.stringify(all, null, 2))
    return
  }
  console.log(surroundingsText(machine, bench.settings))
  for (const { tables } of Object.values(results)) {
    for (const { title, rows, widths } of tables) console.log(`\n${title}\n\n${renderTable(rows, widths)}`)
  }
  if (goals.length === 0) return
  const rows = goals.map((goal) => [judge(goal), goal.what, goal.wanted, goal.seen])
  console.log(`\nGoals\n\n${renderTable([['', 'what', 'wanted', 'seen'], ...rows], [8, 60, 30, 60])}`)
}

/** Nothing is refused, so that what is measured is the way of the data. */
const defaultSettings = { STAGING_MAX_BACKLOG: '1000000', STAGING_MAX_BYTES: '16GiB' }

endOnSignals()
try {
  await main()
  process.exit(0)
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exit(1)
}
