/**
 * Builds the programs written in Go that the tests let talk to Sluice, once, into a cache of the user's: the load
 * generator `telemetrygen`, `grpcurl`, and a Collector. Does nothing for those that are there.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { access, constants, mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { runLong } from './long-command.ts'

const manifest = path.join(import.meta.dirname, '../test/clients/collector-build.yaml')
const builderModule = 'go.opentelemetry.io/collector/cmd/builder'
const collectorVersion = 'v0.161.0'
/** Programs that `go install` builds as they are. */
const installed = {
  telemetrygen: ['github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen', 'v0.161.0'],
  grpcurl: ['github.com/fullstorydev/grpcurl/cmd/grpcurl', 'v1.9.4'],
} as const

/** A program that the tests let talk to Sluice. */
export type Peer = keyof typeof installed | 'otelcol'

const peers: readonly Peer[] = ['telemetrygen', 'grpcurl', 'otelcol']
const inHand = new Map<Peer, Promise<string>>()
const run = promisify(execFile)

/**
 * The path of a peer's program in the cache (`$XDG_CACHE_HOME/sluice/peers`, else `~/.cache/sluice/peers`), which is
 * built first if this version is not there. Two that build at once do the work twice and end with the same program.
 *
 * @throws Error with a sentence when Go is absent or a build fails.
 */
export function peer(name: Peer): Promise<string> {
  const program = inHand.get(name) ?? ensure(name)
  inHand.set(name, program)
  return program
}

async function ensure(name: Peer): Promise<string> {
  const folder = path.join(process.env.XDG_CACHE_HOME || path.join(homedir(), '.cache'), 'sluice', 'peers')
  const program = path.join(folder, `${name}-${await stamp(name)}`)
  if (await canRun(program)) return program
  await requireGo(name)
  await mkdir(folder, { recursive: true })
  // On the same file system, so that the program appears under its name all at once.
  const workshop = await mkdtemp(path.join(folder, 'building-'))
  try {
    await rename(await build(name, workshop), program)
  } finally {
    await rm(workshop, { recursive: true, force: true })
  }
  return program
}

/** What a program's file is named after: another version, or another Collector, is another file. */
async function stamp(name: Peer): Promise<string> {
  if (name !== 'otelcol') return installed[name][1]
  const digest = createHash('sha256').update(await readFile(manifest))
  return `${collectorVersion}-${digest.digest('hex').slice(0, 12)}`
}

function canRun(file: string): Promise<boolean> {
  return access(file, constants.X_OK).then(
    () => true,
    () => false,
  )
}

async function requireGo(name: Peer): Promise<void> {
  try {
    await run('go', ['version'], { timeout: 10_000 })
  } catch (cause) {
    throw new Error(
      `The tests with real clients need ${name}, which is built with Go, and Go is not on the PATH: ` +
        'install it (https://go.dev/dl) and run `make peers`.',
      { cause },
    )
  }
}

/** Builds a program in a folder of its own and answers where it is there. */
async function build(name: Peer, workshop: string): Promise<string> {
  if (name !== 'otelcol') {
    const [module, version] = installed[name]
    await goInstall(name, `${module}@${version}`, workshop)
    return path.join(workshop, name)
  }
  await goInstall("the Collector's builder", `${builderModule}@${collectorVersion}`, workshop)
  await runLong('building the Collector', path.join(workshop, 'builder'), ['--config', manifest], {
    cwd: workshop,
  })
  return path.join(workshop, 'otelcol', 'otelcol')
}

function goInstall(what: string, target: string, folder: string): Promise<void> {
  return runLong(`building ${what}`, 'go', ['install', target], { env: { GOBIN: folder } })
}

if (import.meta.main) {
  try {
    const startedMs = performance.now()
    for (const name of peers) console.log(await peer(name))
    console.log(`All peers are there after ${((performance.now() - startedMs) / 1000).toFixed(1)} s.`)
  } catch (error) {
    console.error(error instanceof Error ? error.message : error)
    process.exitCode = 1
  }
}
