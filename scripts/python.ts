/**
 * Makes a Python environment at `.tools/python` with `opentelemetry-proto`, another implementation of OTLP than ours,
 * for the tests that let it read what we store. Does nothing if it is there.
 */
import { execFile } from 'node:child_process'
import { access, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'

const packages = [
  'opentelemetry-proto==1.45.2',
  'protobuf==7.36.2',
  'opentelemetry-sdk==1.45.2',
  'opentelemetry-exporter-otlp-proto-http==1.45.2',
  'opentelemetry-exporter-otlp-proto-grpc==1.45.2',
  'grpcio-status==1.85.3',
]
const tools = path.join(import.meta.dirname, '../.tools')
const environment = path.join(tools, 'python')
const program = path.join(environment, 'bin/python')
const manifest = 'sluice-packages.txt'
const run = promisify(execFile)

/** Whether a `python3` of at least 3.10 is on the PATH. */
export function hasPython(): Promise<boolean> {
  return run('python3', ['-c', 'import sys; sys.exit(sys.version_info < (3, 10))']).then(
    () => true,
    () => false,
  )
}

/**
 * The Python program of the environment, which is made first if it is absent or has other packages.
 *
 * @throws Error with a sentence when Python or pip is absent, or the package registry cannot be reached.
 */
export async function ensurePython(): Promise<string> {
  if ((await installedPackages()) === packages.join('\n')) return program
  if (!(await hasPython())) throw new Error('There is no python3 (3.10 or later) on the PATH; install it.')
  await mkdir(tools, { recursive: true })
  const folder = await mkdtemp(path.join(tools, 'python-'))
  try {
    await step('python3 -m venv', 'python3', ['-m', 'venv', folder])
    const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...packages]
    await step('pip install', path.join(folder, 'bin/python'), pip)
    await writeFile(path.join(folder, manifest), packages.join('\n'))
    await rm(environment, { recursive: true, force: true })
    // Two at once: whoever comes second finds the same packages there.
    await rename(folder, environment).catch(async (error: unknown) => {
      if ((await installedPackages()) !== packages.join('\n')) throw error
    })
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
  return program
}

async function installedPackages(): Promise<string | undefined> {
  const there = await access(program).then(
    () => true,
    () => false,
  )
  return there ? await readFile(path.join(environment, manifest), 'utf8').catch(() => undefined) : undefined
}

async function step(what: string, command: string, words: string[]): Promise<void> {
  try {
    await run(command, words, { timeout: 180_000 })
  } catch (cause) {
    const { stderr } = cause as { stderr?: string }
    throw new Error(`\`${what}\` for .tools/python failed: ${(stderr ?? '').trim().slice(-800)}`, { cause })
  }
}

if (import.meta.main) console.log(await ensurePython())
