import { parseArgs } from 'node:util'
import { endOnSignals, Machine } from './machine.ts'
import {
  limitBytes,
  type MemoryContext,
  type MemoryLine,
  type MemoryScenario,
  megabytes,
} from './memory/memory-line.ts'
import { memoryScenarios } from './memory/scenarios.ts'
import { renderTable } from './report.ts'

const usage = `usage: node stress/memory.ts [--json] [--only NAME[,NAME]]
  Sends what takes most memory to whole processes with the default settings, on a real PostgreSQL and a real MinIO. Every
  process has to stay under 256 MB + MAX_INFLIGHT_BYTES + PROCESSING_QUEUE_MAX_BYTES, and every 200 has to be stored once.
  Exits with 1 when a line is untrue.
  --json       prints the same as JSON on standard output
  --only NAME  plays these scenarios only
  MODE=long    sends 10 GB at full speed, and more of all the others
  SEED=n       repeats the requests of an earlier run (default: from the clock)

  scenarios:
${memoryScenarios.map(({ name, about }) => `  ${name.padEnd(13)}${about}`).join('\n')}

  examples:
  make stress-memory
  node stress/memory.ts --only 'bombs,large rows' --json`

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
  if (!['', 'long'].includes(MODE)) throw new Error(`MODE=${MODE} is not long`)
  const wanted = values.only?.split(',')
  const unknown = wanted?.find((name) => !memoryScenarios.some((scenario) => scenario.name === name))
  if (unknown !== undefined) throw new Error(`there is no scenario ${unknown}\n${usage}`)
  const played = memoryScenarios.filter(({ name }) => wanted === undefined || wanted.includes(name))

  const say = (line: string) => console.error(line)
  say(`seed ${seed} (repeat with SEED=${seed})`)
  say('  … starting PostgreSQL and MinIO')
  const machine = await Machine.start()
  const lines: MemoryLine[] = []
  try {
    for (const scenario of played) {
      say(`  … ${scenario.name}: ${scenario.about}`)
      lines.push(await playOne(scenario, { machine, long: MODE === 'long', seed, say }))
    }
  } finally {
    await machine.stop()
  }
  const failed = lines.filter(({ ok }) => !ok).length
  if (values.json) console.log(JSON.stringify({ seed, limitBytes, failed, lines }, null, 2))
  else console.log(`\n${table(lines)}\n\n${lines.length} lines, ${failed} FAILED, seed ${seed}`)
  return failed === 0 ? 0 : 1
}

/** A scenario that breaks off is an untrue line; the others are played all the same. */
async function playOne(scenario: MemoryScenario, context: MemoryContext): Promise<MemoryLine> {
  const line = await scenario.play(context).catch((error: Error): MemoryLine => {
    context.say(error.stack ?? error.message)
    return {
      scenario: scenario.name,
      requests: 0,
      taken: 0,
      refused: {},
      ingressPeakBytes: undefined,
      workerPeakBytes: undefined,
      limitBytes,
      seconds: 0,
      ok: false,
      faults: [`it broke off: ${error.message}`],
    }
  })
  for (const fault of line.faults) context.say(`    ${fault}`)
  context.say(`${line.ok ? 'ok' : 'FAILED'}  ${scenario.name}`)
  return line
}

function table(lines: readonly MemoryLine[]): string {
  const peak = (bytes: number | undefined) => (bytes === undefined ? '' : megabytes(bytes))
  const rows = lines.map((line) => [
    line.ok ? 'ok' : 'FAILED',
    line.scenario,
    String(line.requests),
    String(line.taken),
    Object.entries(line.refused)
      .map(([status, count]) => `${status} × ${count}`)
      .join(', '),
    peak(line.ingressPeakBytes),
    peak(line.workerPeakBytes),
    megabytes(line.limitBytes),
    line.seconds.toFixed(0),
    line.faults.join('; '),
  ])
  const header = [
    '',
    'scenario',
    'requests',
    '200',
    'refused',
    'ingress MB',
    'worker MB',
    'limit MB',
    's',
    '',
  ]
  return renderTable([header, ...rows], [6, 14, 8, 6, 30, 10, 9, 8, 4, 60])
}

endOnSignals()
try {
  process.exitCode = await main()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
