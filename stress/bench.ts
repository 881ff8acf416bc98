import { execFileSync } from 'node:child_process'
import os from 'node:os'
import { parseArgs } from 'node:util'
import { holdTimesMs } from '../test/otlp/hold-times.ts'
import { minioBinary } from '../test/support/minio.ts'
import { benchLoops, type LoopFigure } from './bench-loops.ts'
import { benchBodies, benchSettings, benchSetups, benchWhole, type WholeFigure } from './bench-whole.ts'
import { endOnSignals, Machine } from './machine.ts'
import { postgresSettings } from './postgres-server.ts'
import { renderTable } from './report.ts'

const usage = `usage: node stress/bench.ts [--json] [--loops | --whole]
  Times the inner loops, then whole processes at saturation, for the three bodies of test/payloads/bench.
  --json   prints the same as JSON on standard output
  --loops  only the inner loops; items/s and MB/s are those of the best of seven rounds, the median of its turns
  --whole  only the whole processes`

/** The others are shorter. */
const holdsShown = 8

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      loops: { type: 'boolean', default: false },
      whole: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    console.log(usage)
    return
  }
  const say = (line: string) => console.error(line)
  const machine = describeMachine()
  const [busy = 0] = os.loadavg()
  if (busy > os.cpus().length / 4) {
    say(`  others use this machine (load ${busy.toFixed(1)}): every figure will be worse than it could be`)
  }
  const loops = values.whole ? [] : await benchLoops(say)
  const holds = values.whole ? {} : holdTimesMs()
  const whole = values.loops ? undefined : await measureWhole(say)
  if (values.json) {
    console.log(JSON.stringify({ machine, loops, holds, ...whole }, null, 2))
    return
  }
  console.log(
    Object.entries(machine)
      .map(([name, value]) => `${name}: ${value}`)
      .join('\n'),
  )
  if (loops.length > 0) console.log(`\nInner loops\n\n${loopsTable(loops)}`)
  const longest = Object.entries(holds).sort(([, one], [, other]) => other - one)
  if (longest.length > 0) {
    const rows = longest.slice(0, holdsShown).map(([name, ms]) => [name, `${ms.toFixed(1)} ms`])
    console.log(
      `\nRequests of 1 MB that hold the event loop longest\n\n${renderTable([['request', 'hold'], ...rows], [56, 10])}`,
    )
  }
  if (whole !== undefined) {
    console.log(
      `\nWhole processes: ${JSON.stringify(benchSettings)}, PostgreSQL ${whole.postgresVersion} ${JSON.stringify(postgresSettings)}\n\n${wholeTable(whole.figures)}`,
    )
  }
}

async function measureWhole(
  say: (line: string) => void,
): Promise<{ postgresVersion: string; settings: typeof benchSettings; figures: WholeFigure[] }> {
  say('  … starting PostgreSQL and MinIO')
  const machine = await Machine.start()
  try {
    const figures: WholeFigure[] = []
    for (const setup of benchSetups) {
      for (const body of benchBodies) {
        const figure = await benchWhole(machine, setup, body)
        figures.push(figure)
        say(
          `  … ${setup.name}, ${body.name}: ${figure.requestsPerSecond.toFixed(0)} requests/s, ${figure.cpuMicrosecondsPerRequest.toFixed(0)} µs`,
        )
      }
    }
    return { postgresVersion: await machine.postgres.version(), settings: benchSettings, figures }
  } finally {
    await machine.stop()
  }
}

function describeMachine(): Record<string, string> {
  const [cpu] = os.cpus()
  return {
    machine: `${os.cpus().length} × ${cpu?.model.trim() ?? 'unknown'}, ${(os.totalmem() / 2 ** 30).toFixed(0)} GiB, ${os.type()} ${os.release()}`,
    'load before': os
      .loadavg()
      .map((value) => value.toFixed(2))
      .join(' '),
    'Node.js': process.version,
    MinIO: execFileSync(minioBinary(), ['--version'], { encoding: 'utf8' }).split('\n', 1)[0] ?? '',
  }
}

function loopsTable(figures: readonly LoopFigure[]): string {
  return renderTable(
    [
      ['loop', 'mean', 'best round', 'items/s', 'MB/s'],
      ...figures.map(({ name, meanMicroseconds, bestMicroseconds, items, bytes }) => [
        name,
        `${meanMicroseconds.toFixed(1)} µs`,
        `${bestMicroseconds.toFixed(1)} µs`,
        `${(items / bestMicroseconds).toFixed(3)} M`,
        (bytes / bestMicroseconds).toFixed(0),
      ]),
    ],
    [48, 12, 12, 12, 8],
  )
}

function wholeTable(figures: readonly WholeFigure[]): string {
  return renderTable(
    [
      ['', 'body', 'requests/s', 'CPU a request', 'of which', 'p50', 'p99', 'no 200', 'drain'],
      ...figures.map((figure) => [
        figure.setup,
        figure.body,
        figure.requestsPerSecond.toFixed(0),
        `${figure.cpuMicrosecondsPerRequest.toFixed(0)} µs`,
        Object.entries(figure.cpuByProcess)
          .map(([name, microseconds]) => `${name} ${microseconds.toFixed(0)}`)
          .join(', '),
        `${figure.p50Ms.toFixed(1)} ms`,
        `${figure.p99Ms.toFixed(1)} ms`,
        String(figure.refused),
        `${figure.drainSeconds.toFixed(1)} s`,
      ]),
    ],
    [28, 16, 10, 14, 56, 9, 9, 6, 7],
  )
}

endOnSignals()
try {
  await main()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
