import { mkdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { draw } from './draw.ts'
import { type Figures, plotsOf, readFigures } from './plot-figures.ts'

const folder = path.join(import.meta.dirname, '../../docs/performance')

const usage = `usage: node stress/bench/plots.ts FIGURES.json... [--out docs/performance]
  Draws what a file of figures holds, one SVG for each plot: FIGURES.json is what stress/bench/main.ts --json or
  stress/bench/soak.ts --json printed. Of several files the last that has a part is drawn. The same figures give the
  same bytes.
  --out DIR  where to write to (default docs/performance of the checkout)
  --json     prints the files written as JSON on standard output
  Exits with 1 when a file holds no figures.

  examples:
  node stress/bench/main.ts --only backlog --only rates --only ladder --json > figures.json
  node stress/bench/soak.ts --json > soak.json
  node stress/bench/plots.ts figures.json soak.json`

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      out: { type: 'string', default: folder },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    console.log(usage)
    return 0
  }
  if (positionals.length === 0) throw new Error(`no file of figures is given\n${usage}`)
  const figures: Figures = {}
  for (const file of positionals) Object.assign(figures, figuresIn(file, await readFile(file, 'utf8')))
  const written: string[] = []
  await mkdir(values.out, { recursive: true })
  for (const { name, plot } of plotsOf(figures)) {
    const file = path.join(values.out, `${name}.svg`)
    await writeFile(file, draw(plot))
    written.push(file)
  }
  if (values.json) console.log(JSON.stringify({ written }, null, 2))
  else for (const file of written) console.log(file)
  if (written.length === 0) {
    throw new Error(
      `${positionals.join(', ')}: no figures of rates, backlog, ladder or soak, so nothing is drawn`,
    )
  }
  return 0
}

/** @throws Error that names the file when it is no JSON of figures. */
function figuresIn(file: string, text: string): Figures {
  try {
    return readFigures(text)
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : String(error)
    throw new Error(`${file} is no output of the bench or of the soak with --json: ${why}`)
  }
}

try {
  process.exitCode = await main()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
