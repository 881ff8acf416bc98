import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { Client } from 'minio'
import { freePort } from './free-port.ts'

/** A real MinIO server of one drive. */
export interface RunningMinio {
  endpoint: URL
  accessKey: string
  secretKey: string
  dataDir: string
  pid: number
  /** Ends the server and, unless the folder was given, deletes its data. */
  stop(): Promise<void>
}

export interface MinioStart {
  /** A free one if not given. With `dataDir`, a server that was stopped comes back as itself. */
  port?: number
  /** A new folder below the temporary one if not given. */
  dataDir?: string
  /** Another than that of the other servers here. */
  secretKey?: string
  /** Further environment variables of the server. */
  env?: Record<string, string>
  /** A folder with `public.crt` and `private.key`: the server speaks https. */
  certificates?: string
}

const accessKey = 'sluice-test'
const usualSecretKey = 'sluice-test-secret'
const readyWithinMs = 60_000
/** Between looking for a free port and taking it, somebody else may. */
const startTries = 3

/** Where the server's program is: `MINIO_BIN`, else `minio` on the PATH, else `.tools/minio`. */
export function minioBinary(): string {
  const { MINIO_BIN, PATH = '' } = process.env
  const onPath = PATH.split(path.delimiter).map((folder) => path.join(folder, 'minio'))
  const installed = path.join(import.meta.dirname, '../../.tools/minio')
  const found = [MINIO_BIN, ...onPath, installed].find((file) => file !== undefined && isExecutable(file))
  if (MINIO_BIN !== undefined && found !== MINIO_BIN) {
    throw new Error(`MINIO_BIN=${MINIO_BIN} cannot be run; unset it, or let it name a MinIO server.`)
  }
  if (found === undefined) {
    throw new Error(
      'These tests talk to a real MinIO server and there is none: run `make minio` (about 3 minutes, once), ' +
        'or put `minio` on the PATH, or let MINIO_BIN name it.',
    )
  }
  return found
}

/** Starts a server on a loopback port and resolves when it is ready for requests, in about 0.7 s. */
export async function startMinio(start: MinioStart = {}): Promise<RunningMinio> {
  const { port, dataDir, secretKey = usualSecretKey, env = {}, certificates } = start
  const binary = minioBinary()
  const folder = dataDir ?? (await mkdtemp(path.join(os.tmpdir(), 'sluice-minio-')))
  for (let tries = 1; ; tries += 1) {
    const address = `127.0.0.1:${port ?? (await freePort())}`
    const certs = certificates === undefined ? [] : ['--certs-dir', certificates]
    const server = new Server(binary, address, [...certs, folder], secretKey, env)
    try {
      await server.ready()
      return {
        endpoint: new URL(`${certificates === undefined ? 'http' : 'https'}://${address}`),
        accessKey,
        secretKey,
        dataDir: folder,
        pid: server.pid,
        async stop() {
          await server.stop()
          if (dataDir === undefined) await rm(folder, { recursive: true, force: true })
        },
      }
    } catch (error) {
      await server.stop()
      if (port !== undefined || tries === startTries) throw error
    }
  }
}

class Server {
  readonly #child: ChildProcess
  readonly #address: string
  readonly #probe: Client
  readonly #exited: Promise<unknown>
  readonly #killAtExit = () => this.#child.kill('SIGKILL')
  #output = ''

  constructor(
    binary: string,
    address: string,
    rest: string[],
    secretKey: string,
    env: Record<string, string>,
  ) {
    this.#address = address
    const [endPoint = '', port] = address.split(':')
    this.#probe = new Client({
      endPoint,
      port: Number(port),
      useSSL: rest.includes('--certs-dir'),
      accessKey,
      secretKey,
      region: env.MINIO_SITE_REGION ?? 'us-east-1',
      retryOptions: { disableRetry: true },
    })
    // A test's certificate is nobody's business here.
    this.#probe.setRequestOptions({ rejectUnauthorized: false })
    this.#child = spawn(binary, ['server', '--quiet', '--address', address, ...rest], {
      env: {
        ...process.env,
        MINIO_ROOT_USER: accessKey,
        MINIO_ROOT_PASSWORD: secretKey,
        MINIO_BROWSER: 'off',
        MINIO_UPDATE: 'off',
        ...env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const keep = (chunk: Buffer) => {
      this.#output = (this.#output + chunk.toString()).slice(-4000)
    }
    this.#child.stdout?.on('data', keep)
    this.#child.stderr?.on('data', keep)
    this.#exited = once(this.#child, 'exit').catch(() => undefined)
    process.once('exit', this.#killAtExit)
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  async ready(): Promise<void> {
    const untilMs = performance.now() + readyWithinMs
    while (performance.now() < untilMs) {
      const ready = await this.#answersReady()
      if (this.#hasExited()) break
      if (ready) return
      await wait(25)
    }
    throw new Error(`MinIO did not come up on ${this.#address}. Its last words: ${this.#output.trim()}`)
  }

  /** Its own health check says yes before it takes signed requests, so one of those is what counts. */
  #answersReady(): Promise<boolean> {
    return this.#probe.listBuckets().then(
      () => true,
      () => false,
    )
  }

  async stop(): Promise<void> {
    process.off('exit', this.#killAtExit)
    if (!this.#hasExited()) {
      // A server that a test has stopped with SIGSTOP hears only this.
      this.#child.kill('SIGKILL')
      await this.#exited
    }
  }

  #hasExited(): boolean {
    return this.#child.pid === undefined || this.#child.exitCode !== null || this.#child.signalCode !== null
  }
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}
