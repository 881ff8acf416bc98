import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type EmbeddedOptions, type EmbeddedPostgres, openEmbedded } from '../../src/postgres/embedded.ts'
import { findBinaries } from '../../src/postgres/embedded-binaries.ts'
import { createCluster } from '../../src/postgres/embedded-cluster.ts'
import { isPostmasterOf, readPostmaster } from '../../src/postgres/postmaster-pid.ts'
import { CACHE_FOLDER, reachableBinaries } from '../../src/postgres/reachable.ts'
import { serverUser } from '../../src/postgres/server-user.ts'
import { stopServer } from '../support/postgres-server.ts'

/** Folders for embedded servers of one test file. `clear` kills what still runs in them. */
export class EmbeddedFolders {
  readonly #root = mkdtempSync(join(tmpdir(), 'sluice-embedded-'))
  readonly #made: string[] = []
  readonly #children: ChildProcess[] = []

  constructor() {
    chmodSync(this.#root, 0o711)
  }

  /** An empty `DATA_DIR`, not made yet. */
  empty(name = `data${this.#made.length}`): string {
    const dataDir = join(this.#root, name)
    this.#made.push(dataDir)
    return dataDir
  }

  /** A `DATA_DIR` with a cluster that was never started: a copy, since initdb takes a second. */
  async prepared(name?: string): Promise<string> {
    const template = join(this.#root, 'template')
    if (readPostmasterOrNone(template) === undefined) {
      const user = serverUser()
      const binaries = await reachableBinaries(findBinaries(), user, CACHE_FOLDER)
      await createCluster({ binaries, user, folder: template, sync: false })
    }
    const dataDir = this.empty(name)
    mkdirSync(dataDir, { recursive: true, mode: 0o711 })
    execFileSync('cp', ['-a', template, join(dataDir, 'postgres')])
    return dataDir
  }

  /** A process of its own that owns the server; resolves when it is ready. */
  async process(dataDir: string): Promise<OwnerProcess> {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'embedded-process.ts'), dataDir], {
      // A process group of its own, as a shell gives to a command in the foreground.
      detached: true,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    this.#children.push(child)
    return await ownerProcess(child)
  }

  async clear(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL')
    for (const dataDir of this.#made) {
      const data = join(dataDir, 'postgres', 'data')
      const state = readPostmasterOrNone(join(dataDir, 'postgres'))
      if (state?.kind === 'running' && isPostmasterOf(state.pid, data)) await stopServer(state.pid)
    }
    rmSync(this.#root, { recursive: true, force: true })
  }
}

function readPostmasterOrNone(home: string): ReturnType<typeof readPostmaster> | undefined {
  try {
    chmodSync(home, 0o700)
    return readPostmaster(join(home, 'data'))
  } catch {
    // Nothing was made there.
    return undefined
  }
}

interface Said {
  event: string
  [field: string]: unknown
}

export interface OwnerProcess {
  readonly child: ChildProcess
  readonly postmaster: number
  readonly adopted: boolean
  /** Everything that it has said so far. */
  readonly said: readonly Said[]
  /** Resolves with the first thing of this kind that it says, or has said. */
  says(event: string): Promise<Said>
  /** Resolves with the exit code, or the signal that ended it. */
  ends(): Promise<number | string>
}

async function ownerProcess(child: ChildProcess): Promise<OwnerProcess> {
  const said: Said[] = []
  const waiting: { event: string; resolve: (said: Said) => void; reject: (error: Error) => void }[] = []
  const ended = once(child, 'exit').then(([code, signal]) => {
    for (const { event, reject } of waiting)
      reject(new Error(`ended before it said ${event}: ${JSON.stringify(said)}`))
    return (code ?? signal) as number | string
  })
  if (child.stdout === null) throw new Error('no pipe')
  createInterface(child.stdout).on('line', (line) => {
    const one = JSON.parse(line) as Said
    said.push(one)
    for (const { event, resolve } of waiting) if (event === one.event) resolve(one)
  })
  const says = (event: string) => {
    const found = said.find((one) => one.event === event)
    return found ?? new Promise<Said>((resolve, reject) => waiting.push({ event, resolve, reject }))
  }
  const { pid, adopted } = await says('ready')
  return {
    child,
    postmaster: Number(pid),
    adopted: adopted === true,
    said,
    says: async (event) => await says(event),
    ends: () => ended,
  }
}

export interface Watched {
  readonly server: EmbeddedPostgres
  readonly log: string[]
  /** Resolves with the message when ownership was lost for good. */
  readonly lost: Promise<string>
  /** Resolves when a line that holds `text` has been logged. */
  logged(text: string): Promise<string>
}

/** Opens the server in this process and keeps what it logs. */
export async function openWatched(dataDir: string, options: Partial<EmbeddedOptions> = {}): Promise<Watched> {
  const log: string[] = []
  const waiting: { text: string; resolve: (line: string) => void }[] = []
  let lose: (message: string) => void = () => undefined
  const lost = new Promise<string>((resolve) => {
    lose = resolve
  })
  const server = await openEmbedded({
    dataDir,
    log: (level, message) => {
      const line = `${level}: ${message}`
      log.push(line)
      for (const { text, resolve } of waiting) if (line.includes(text)) resolve(line)
    },
    onOwnershipLost: (failure) => lose(failure.message),
    ...options,
  })
  return {
    server,
    log,
    lost,
    logged: (text) =>
      new Promise((resolve) => {
        const found = log.find((line) => line.includes(text))
        if (found === undefined) waiting.push({ text, resolve })
        else resolve(found)
      }),
  }
}
