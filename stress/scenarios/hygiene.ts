import type { LogLine } from '../sluice-process.ts'
import type { Scenario } from './scenario.ts'

/** Error-level events that the scenarios bring about on purpose. */
const broughtAbout: ReadonlySet<string> = new Set([
  'batch_persist_failed',
  'circuit_open',
  'poll_failed',
  'store_unavailable',
])

/** How all the processes of the run behaved, beside what they did. Played last. */
export const hygiene: Scenario = {
  name: 'hygiene',
  async play({ machine, report }): Promise<void> {
    const { processes } = machine
    const stray = processes.flatMap(({ name, strayLines }) => strayLines.map((line) => `${name}: ${line}`))
    const lines = processes.reduce((total, { log }) => total + log.length, 0)
    report.check('no process wrote a line that is not JSON', {
      expected: `0 of ${lines + stray.length} lines`,
      seen: stray.length === 0 ? '0' : `${stray.length}: ${stray.slice(0, 3).join(' | ')}`,
      ok: stray.length === 0,
    })
    const nameless = processes.flatMap(({ log }) => log.filter(({ event, level }) => !event || !level))
    const errors = processes.flatMap(({ name, log }) =>
      log.filter(isUnexpected).map((line) => `${name}: ${JSON.stringify(line).slice(0, 400)}`),
    )
    report.check('no unexpected error in a log', {
      expected: `none beside ${[...broughtAbout].join(', ')}; every line with event and level`,
      seen:
        errors.length + nameless.length === 0
          ? 'none'
          : `${errors.length} errors, ${nameless.length} nameless: ${errors.slice(0, 3).join(' | ')}`,
      ok: errors.length === 0 && nameless.length === 0,
    })
    const codes = processes.filter(({ wasKilled }) => !wasKilled).map(({ name, exit }) => ({ name, exit }))
    const wrong = codes.filter(({ exit }) => exit !== 0)
    report.check('SIGTERM ends every process with 0', {
      expected: `${codes.length} × 0`,
      seen:
        wrong.length === 0
          ? `${codes.length} × 0`
          : wrong.map(({ name, exit }) => `${name}: ${exit ?? 'still running'}`).join(', '),
      ok: wrong.length === 0 && codes.length > 0,
    })
  },
}

function isUnexpected({ level, event }: LogLine): boolean {
  return level === 'error' && !broughtAbout.has(event ?? '')
}
