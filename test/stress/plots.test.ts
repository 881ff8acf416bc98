import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { draw } from '../../stress/bench/draw.ts'
import { plotsOf, readFigures } from '../../stress/bench/plot-figures.ts'

const command = path.join(import.meta.dirname, '../../stress/bench/plots.ts')

const collector = 'Collector <memory> & queue'
const round = (subject: string, cpuByProcess: Record<string, number>) => ({
  body: '10 spans gzip',
  subject,
  cpuByProcess,
})
/** Cut down from what the bench and the soak print. */
const bench = {
  machine: { 'Node.js': 'v24' },
  figures: {
    rates: {
      rounds: [
        round('Sluice', { ingress: 100, worker: 50 }),
        round('Sluice', { ingress: 300, worker: 50 }),
        round('Sluice', { ingress: 140, worker: 60 }),
        round(collector, { Collector: 777 }),
      ],
    },
    backlog: [
      { rows: 0, claimMicroseconds: 31.24, settleMicroseconds: 40.5 },
      { rows: 1_000_000, claimMicroseconds: 35.7, settleMicroseconds: 44.4 },
    ],
    ladder: {
      body: '10 spans gzip',
      peak: 3736.4,
      steps: [
        { perSecond: 374, p50Ms: 2.1, p99Ms: 7.5 },
        { perSecond: 3363, p50Ms: 12.1, p99Ms: 317 },
      ],
    },
  },
}
const sample = (seconds: number) => ({
  seconds,
  residentBytes: { ingress: 2e8, worker: 1e8 },
  sizes: { 'table ingestion_queue': 5e7, 'index ingestion_queue_pkey': 0 },
})
const soak = {
  figures: {
    soak: {
      body: '10 spans gzip',
      perSecond: 1234,
      samples: [sample(0), sample(60)],
      windows: [
        { seconds: 30, p50Ms: 2, p99Ms: 9 },
        { seconds: 60, p50Ms: 2, p99Ms: 10 },
      ],
    },
  },
}
const both = { figures: { ...bench.figures, ...soak.figures } }

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'sluice-plots-'))
})
afterEach(() => rm(folder, { recursive: true }))

function drawn(name: string): string {
  const found = plotsOf(readFigures(JSON.stringify(both))).find((plot) => plot.name === name)
  if (found === undefined) throw new Error(`no plot ${name}`)
  return draw(found.plot)
}

/** Every element closed in its order, every attribute quoted, nothing of markup in a text. */
function expectWellFormed(svg: string): void {
  const tokens = svg.replaceAll(/<!\[CDATA\[[\s\S]*?\]\]>/g, '').matchAll(/<([^>]*)>|([^<]+)/g)
  const open: string[] = []
  for (const [, tag, text] of tokens) {
    if (text !== undefined) expect(text).not.toMatch(/&(?!(amp|lt|gt|quot|apos|#\d+);)|>/)
    else if (tag?.startsWith('/')) expect(tag.slice(1)).toBe(open.pop())
    else {
      expect(tag).toMatch(/^[a-z][\w:-]*(\s+[\w:-]+="[^"<]*")*\s*\/?$/i)
      if (tag?.endsWith('/') === false) open.push(/^\S+/.exec(tag)?.[0] ?? '')
    }
  }
  expect(open).toEqual([])
}

const texts = (svg: string) => [...svg.matchAll(/<text[^>]*>([^<]*)<\/text>/g)].map(([, text]) => text)

test.each(plotsOf(readFigures(JSON.stringify(both))))(
  '$name is well-formed XML on a white ground',
  ({ plot }) => {
    const svg = draw(plot)
    expectWellFormed(svg)
    expect(svg).toContain('fill="#ffffff"')
  },
)

test('a plot says its title, its axes with their units, and each value', () => {
  expect(texts(drawn('backlog'))).toEqual(
    expect.arrayContaining([
      'What a claim and a settle cost, by how many rows wait',
      'rows waiting',
      'µs a row',
      'claim',
      'settle',
      '0',
      '1 000 000',
      '31.2',
      '40.5',
      '35.7',
      '44.4',
    ]),
  )
  expect(texts(drawn('latency'))).toEqual(expect.arrayContaining(['requests/s', '2.1', '7.5', '12.1', '317']))
  expect(texts(drawn('soak-latency'))).toEqual(expect.arrayContaining(['minutes', 'p50', 'p99']))
})

test('a bar is the sum of the medians of its rounds', () => {
  // 140 and 50 of Sluice.
  expect(texts(drawn('cpu'))).toEqual(
    expect.arrayContaining(['190', '777', 'Sluice', 'Collector &lt;memory&gt; &amp; queue', 'worker']),
  )
})

test('the same figures give the same bytes, whatever was drawn before', () => {
  const first = drawn('latency')
  drawn('cpu')
  expect(drawn('latency')).toBe(first)
})

test('the command writes a file for each plot that it has figures for, and says which', async () => {
  await writeFile(path.join(folder, 'bench.json'), JSON.stringify(bench))
  await writeFile(path.join(folder, 'soak.json'), JSON.stringify(soak))
  const out = path.join(folder, 'plots')
  const run = (...files: string[]) =>
    execFileSync(process.execPath, [command, ...files, '--out', out], { cwd: folder, encoding: 'utf8' })
  const names = (printed: string) =>
    printed
      .trim()
      .split('\n')
      .map((file) => path.relative(out, file))
  expect(names(run('bench.json'))).toEqual(['backlog.svg', 'latency.svg', 'cpu.svg'])
  expect(names(run('soak.json'))).toEqual(['soak-memory.svg', 'soak-latency.svg', 'soak-tables.svg'])
  expect((await readdir(out)).length).toBe(6)
  expect(await readFile(path.join(out, 'latency.svg'), 'utf8')).toBe(drawn('latency'))
})

test('a file without figures is named', async () => {
  await writeFile(path.join(folder, 'other.json'), '{"figures":{"backlog":[{"rows":"many"}]}}')
  const { status, stderr } = spawnSync(process.execPath, [command, 'other.json', '--out', folder], {
    cwd: folder,
    encoding: 'utf8',
  })
  expect(status).toBe(1)
  expect(stderr).toContain('other.json is no output of the bench or of the soak with --json')
  expect(stderr).toContain('figures.backlog[0].rows')
})
