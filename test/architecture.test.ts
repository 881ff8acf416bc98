import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { metricDeclarations } from '../src/telemetry/metrics.ts'

const root = path.join(import.meta.dirname, '..')

/** Who may import whom. Everyone may also import telemetry and foundation; foundation imports nothing of ours. */
const importsAllowed: Readonly<Record<string, readonly string[]>> = {
  foundation: [],
  telemetry: ['foundation'],
  otlp: ['telemetry', 'foundation'],
  postgres: ['telemetry', 'foundation'],
  queue: ['otlp', 'postgres', 'telemetry', 'foundation'],
  sink: ['otlp', 'postgres', 'telemetry', 'foundation'],
  relay: ['queue', 'sink', 'otlp', 'telemetry', 'foundation'],
  ingress: ['queue', 'otlp', 'telemetry', 'foundation'],
}
/** What joins the parts may import all of them. */
const joins = ['main.ts', 'config.ts', 'cli']

const bannedNames = [
  'common',
  'constants',
  'helper',
  'helpers',
  'index',
  'lib',
  'misc',
  'shared',
  'types',
  'util',
  'utils',
]

/** Tracked files and those about to be, without what is deleted. */
const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .trimEnd()
  .split('\n')
  .filter((file) => existsSync(path.join(root, file)) && statSync(path.join(root, file)).isFile())

const read = (file: string) => readFileSync(path.join(root, file), 'utf8')

function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/(^|\s)\/\/.*$/gm, '$1')
}

const sources = new Map(
  files
    .filter((file) => file.startsWith('src/') && file.endsWith('.ts'))
    .map((file) => [file, withoutComments(read(file))]),
)

/** The files of ours that a file imports, or runs as a thread, by their paths from the root; without `import type` if only values count. */
function imports(file: string, text: string, { values = false } = {}): string[] {
  const statements = text.matchAll(
    /^(?:import|export)\b(?: (type)\b)?[^'";]*?['"](\.[^'"]+)['"]|import\(\s*'(\.[^']+)'|`(\S+)\$\{path\.extname\(/gm,
  )
  return [...statements]
    .filter(([, isType]) => !(values && isType === 'type'))
    .map(([, , specifier, dynamic, thread]) => specifier ?? dynamic ?? `${thread}.ts`)
    .map((specifier) => path.posix.join(path.posix.dirname(file), specifier))
}

const partOf = (file: string) => file.split('/')[1] ?? ''

/** Where in `src/` a pattern stands, apart from the files where it may. */
function placesOf(pattern: RegExp, allowedIn: readonly string[] = []): string[] {
  return [...sources]
    .filter(([file]) => !allowedIn.includes(file))
    .flatMap(([file, text]) =>
      [...text.matchAll(pattern)].map(([found]) => `${file}: ${found.replaceAll(/\s+/g, ' ')}`),
    )
}

describe('imports', () => {
  test('run in the direction of the data, as the import table allows', () => {
    const forbidden = [...sources].flatMap(([file, text]) => {
      const part = partOf(file)
      if (joins.includes(part)) return []
      const allowed = importsAllowed[part] ?? []
      return imports(file, text)
        .filter((imported) => partOf(imported) !== part && !allowed.includes(partOf(imported)))
        .map((imported) => `${file} imports ${imported}`)
    })
    expect(forbidden).toEqual([])
  })

  test('every folder of src/ is a part of the table', () => {
    const parts = new Set([...sources.keys()].map(partOf))
    expect([...parts].filter((part) => !joins.includes(part) && !(part in importsAllowed))).toEqual([])
  })

  test('the configuration joins settings and nothing else', () => {
    const others = imports('src/config.ts', sources.get('src/config.ts') ?? '').filter(
      (file) => !file.startsWith('src/foundation/') && !file.endsWith('/settings.ts'),
    )
    expect(others).toEqual([])
    expect(read('src/config.ts').split('\n').length).toBeLessThanOrEqual(80)
  })

  test('go in no circle', () => {
    const circles: string[] = []
    const done = new Set<string>()
    const visit = (file: string, way: readonly string[]) => {
      if (way.includes(file)) {
        circles.push([...way.slice(way.indexOf(file)), file].join(' → '))
        return
      }
      if (done.has(file)) return
      for (const imported of imports(file, sources.get(file) ?? '')) visit(imported, [...way, file])
      done.add(file)
    }
    for (const file of sources.keys()) visit(file, [])
    expect(circles).toEqual([])
  })

  test('reach every file of src/ from src/main.ts', () => {
    const reached = new Set<string>()
    const visit = (file: string) => {
      if (reached.has(file)) return
      reached.add(file)
      imports(file, sources.get(file) ?? '').forEach(visit)
    }
    visit('src/main.ts')
    expect([...sources.keys()].filter((file) => !reached.has(file))).toEqual([])
  })
})

describe('SQL', () => {
  const statements = files.filter((file) => /^sql\/(?!migrations\/)[^/]+\/[^/]+\.sql$/.test(file))
  const camelCase = (name: string) =>
    name.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())

  test('each statement is run by one function of its name', () => {
    const faults = statements.flatMap((file) => {
      const name = file.slice('sql/'.length, -'.sql'.length)
      const users = [...sources].filter(([, text]) => text.includes(`'${name}'`))
      const wanted = camelCase(path.posix.basename(name))
      const exported = new RegExp(`export (async )?(function\\*? |const )${wanted}\\b`)
      if (users.length !== 1) return [`${file} is used by ${users.length} files`]
      return users.flatMap(([user, text]) =>
        exported.test(text) ? [] : [`${user} runs ${file} and exports no ${wanted}`],
      )
    })
    expect(faults).toEqual([])
  })

  test('each statement that a function names is there', () => {
    const named = [...sources.values()].flatMap((text) =>
      [...text.matchAll(/\bstatement(?:<[^(]*>)?\(\s*'([^']+)'/g)].map(([, name]) => `sql/${name}.sql`),
    )
    expect(named.filter((file) => !statements.includes(file))).toEqual([])
  })

  test('migrations are numbered without a gap', () => {
    const numbers = files
      .flatMap((file) => /^sql\/migrations\/(\d{4})_[a-z_]+\.sql$/.exec(file)?.[1] ?? [])
      .toSorted()
    expect(numbers).toEqual(numbers.map((_, index) => String(index + 1).padStart(4, '0')))
  })
})

describe('src/', () => {
  test('reads the environment in main.ts alone', () => {
    expect(placesOf(/process\.env\b/g, ['src/main.ts'])).toEqual([])
  })

  test('takes time from the clock alone', () => {
    const time =
      /\bDate\.now\b|\bnew Date\(\)|\bsetTimeout\b|\bsetInterval\b|\bperformance\.now\b|\bprocess\.hrtime\b|\bAbortSignal\.timeout\b/g
    expect(placesOf(time, ['src/foundation/clock.ts'])).toEqual([])
  })

  test('takes chance from main.ts alone', () => {
    expect(placesOf(/\bMath\.random\b/g, ['src/main.ts'])).toEqual([])
  })

  test('swallows no error without saying why', () => {
    // Comments are looked at here: one that says why the error is final is what makes such a catch right.
    const silent = [...sources.keys()].filter((file) => /\bcatch\s*(\([^)]*\))?\s*\{\s*\}/.test(read(file)))
    expect(silent).toEqual([])
  })

  test('has no hooks for tests', () => {
    expect(placesOf(/__test|NODE_ENV|\bVITEST\b/g)).toEqual([])
  })

  test('has no files that say nothing about what is in them', () => {
    const names = [...sources.keys()].filter((file) =>
      file.split('/').some((step) => bannedNames.includes(step.replace(/\.ts$/, ''))),
    )
    expect(names).toEqual([])
  })

  test('counts every metric that it declares', () => {
    const users = [...sources].filter(([file]) => file !== 'src/telemetry/metrics.ts').map(([, text]) => text)
    const unused = Object.keys(metricDeclarations).filter(
      (name) =>
        !users.some((text) =>
          new RegExp(`metrics\\.${name}\\b|watch\\(\\s*'${name}'|[{,]\\s*${name}\\s*[,}]`).test(text),
        ),
    )
    expect(unused).toEqual([])
  })
})

describe('tests', () => {
  /** Every file that a test runs, by way of what it imports. */
  function reach(file: string, reached = new Set<string>()): Set<string> {
    if (reached.has(file) || !files.includes(file)) return reached
    reached.add(file)
    for (const imported of imports(file, withoutComments(read(file)), { values: true }))
      reach(imported, reached)
    return reached
  }
  const testFiles = files.filter((file) => file.startsWith('test/') && file.endsWith('.test.ts'))

  test.each([
    ['test/support/postgres.ts', '.pg.'],
    ['test/support/minio.ts', '.s3.'],
  ])('whatever uses %s says so in its name by %s', (support, mark) => {
    const misnamed = testFiles.filter(
      (file) => !path.posix.basename(file).includes(mark) && reach(file).has(support),
    )
    expect(misnamed).toEqual([])
  })
})

describe('the package', () => {
  const manifest = JSON.parse(read('package.json')) as Record<string, Record<string, string>>
  const groups = ['dependencies', 'devDependencies', 'optionalDependencies']

  test('pins every dependency to one version', () => {
    const loose = groups
      .flatMap((group) => Object.entries(manifest[group] ?? {}))
      .filter(([, version]) => !/^\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?$/.test(version))
    expect(loose).toEqual([])
  })

  test('has a lock file for these versions', () => {
    const lock = JSON.parse(read('package-lock.json')) as { packages: Record<string, typeof manifest> }
    const locked = lock.packages[''] ?? {}
    expect(groups.map((group) => locked[group])).toEqual(groups.map((group) => manifest[group]))
  })

  test('uses every dependency that it declares', () => {
    const text = [...sources.values()].join('\n')
    const unused = Object.keys(manifest.dependencies ?? {}).filter(
      (name) => !new RegExp(`from '${name}(/[^']*)?'`).test(text),
    )
    expect(unused).toEqual([])
  })

  test('names no registry, so that it installs from whichever is configured', () => {
    // In halves, or this file would be the first to name them.
    const hosts = [
      ['registry.npmjs', 'org'],
      ['registry.yarnpkg', 'com'],
      ['npm.pkg.github', 'com'],
      ['proxy.golang', 'org'],
      ['pypi', 'org'],
      ['files.pythonhosted', 'org'],
      ['ghcr', 'io'],
      ['quay', 'io'],
      ['docker', 'io'],
    ].map((halves) => halves.join('.'))
    const naming = files.flatMap((file) => {
      const text = read(file)
      return hosts.filter((host) => text.includes(host)).map((host) => `${file}: ${host}`)
    })
    expect(naming).toEqual([])
  })
})
