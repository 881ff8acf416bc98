/**
 * Writes what is generated from the code: docs/configuration.md, docs/metrics.md and config/sluice.example.env.
 * With `--check` it writes nothing and fails when a file is not what it would write.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { settingsByPart, settingsRules } from '../src/config.ts'
import type { Setting } from '../src/foundation/setting.ts'
import { type MetricDeclaration, metricDeclarations } from '../src/telemetry/metrics.ts'

const root = path.join(import.meta.dirname, '..')
const parts = Object.entries<Readonly<Record<string, Setting<unknown>>>>(settingsByPart)
const metrics = Object.values<MetricDeclaration>(metricDeclarations)

const code = (text: string) => `\`${text}\``
const cell = (text: string) => text.replaceAll('|', '\\|')

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map(cell).join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

function withoutValue({ defaultText, whenUnset }: Setting<unknown>): string {
  if (defaultText !== undefined && defaultText !== '') return code(defaultText)
  return whenUnset === undefined ? 'none' : `none: ${whenUnset}`
}

function aboutSetting({ about, aliases }: Setting<unknown>): string {
  return aliases.length === 0 ? about : `${about} Also read from ${aliases.map(code).join(', ')}.`
}

function configurationPage(): string {
  const sections = parts.flatMap(([part, settings]) => [
    `## ${part}`,
    table(
      ['name', 'default', 'must be', ''],
      Object.entries(settings).map(([name, setting]) => [
        code(name),
        withoutValue(setting),
        setting.rule,
        aboutSetting(setting),
      ]),
    ),
  ])
  return [
    '# Configuration',
    '<!-- Generated from src/*/settings.ts by `make docs`. -->',
    'Settings are environment variables. Each can also be written with the prefix `OTEL_`; the name without it wins. A blank variable is one that is not set. Everything is read once, at the start: all faults are reported together, and a name that is close to one of these without being one is pointed out.',
    ...sections,
    '## Rules over several settings',
    settingsRules.map(({ rule }) => `- ${rule}.`).join('\n'),
  ].join('\n\n')
}

function exampleEnvironment(): string {
  const sections = parts.flatMap(([part, settings]) => [
    `# --- ${part} ---`,
    ...Object.entries(settings).map(([name, setting]) => {
      const unset = setting.whenUnset === undefined ? '' : ` Without a value: ${setting.whenUnset}.`
      return `# ${aboutSetting(setting).replaceAll('`', '')}${unset.replaceAll('`', '')}\n#${name}=${setting.defaultText ?? ''}`
    }),
  ])
  return [
    '# Every setting with its default. Generated from src/*/settings.ts by `make docs`; copy it, and take away the # before what you change.',
    ...sections,
  ].join('\n\n')
}

function metricsPage(): string {
  return [
    '# Metrics',
    '<!-- Generated from src/telemetry/metrics.ts by `make docs`. -->',
    'What `GET /metrics` on the admin port answers, in the direction of the data, in the Prometheus text format. Beside these stand the metrics of the process under the names that dashboards for Node.js know: `process_…` and `nodejs_…`.',
    table(
      ['name', 'kind', 'labels', ''],
      metrics.map(({ name, kind, labels = [], about }) => [
        code(name),
        kind,
        labels.map(code).join(', '),
        about,
      ]),
    ),
  ].join('\n\n')
}

const files: Readonly<Record<string, string>> = {
  'docs/configuration.md': configurationPage(),
  'docs/metrics.md': metricsPage(),
  'config/sluice.example.env': exampleEnvironment(),
}

const checking = process.argv.includes('--check')
for (const [name, content] of Object.entries(files)) {
  const file = path.join(root, name)
  const wanted = `${content}\n`
  if (!checking) {
    await mkdir(path.dirname(file), { recursive: true })
    await writeFile(file, wanted)
  } else if ((await readFile(file, 'utf8').catch(() => '')) !== wanted) {
    console.error(`${name} is not what the code says; run \`make docs\` and commit it.`)
    process.exitCode = 1
  }
}
