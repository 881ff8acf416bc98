import { execFileSync } from 'node:child_process'
import os from 'node:os'
import { minioBinary } from '../../test/support/minio.ts'
import { benchPostgresSettings } from './steady-machine.ts'

/** The machine and the versions that a measurement is made with. */
export function describeMachine(): Record<string, string> {
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

/** Machine, versions and settings, a line each. */
export function surroundingsText(
  machine: Readonly<Record<string, string>>,
  settings: Readonly<Record<string, string>>,
): string {
  const all = { ...machine, Sluice: inOneLine(settings), PostgreSQL: inOneLine(benchPostgresSettings) }
  return Object.entries(all)
    .map(([name, value]) => `${name}: ${value}`)
    .join('\n')
}

function inOneLine(settings: Readonly<Record<string, string>>): string {
  return Object.entries(settings)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ')
}
