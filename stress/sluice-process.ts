import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as wait } from 'node:timers/promises'

const repository = path.join(import.meta.dirname, '..')
const readyWithinMs = 30_000
const wordsKept = 20

/** One line of a process's log. */
export interface LogLine {
  readonly event?: string
  readonly reason?: string
  readonly level?: string
  /** Of a summary line: how many events it stands for. */
  readonly count?: number
  readonly [field: string]: unknown
}

export interface SluiceStart {
  /** How the process is called in what the harness prints. */
  name: string
  args: readonly string[]
  /** The whole environment, besides PATH and HOME. */
  environment: Readonly<Record<string, string>>
  adminPort: number
}

/** The program itself, as a process of its own: `node src/main.ts …`. */
export class SluiceProcess {
  readonly name: string
  readonly log: LogLine[] = []
  /** Lines of standard output and standard error that are not JSON objects. */
  readonly strayLines: string[] = []
  readonly #child: ChildProcess
  readonly #adminPort: number
  readonly #exited: Promise<void>
  #ending = false
  #killed = false

  constructor({ name, args, environment, adminPort }: SluiceStart) {
    this.name = name
    this.#adminPort = adminPort
    const { PATH = '', HOME = '/' } = process.env
    this.#child = spawn(process.execPath, [path.join(repository, 'src/main.ts'), ...args], {
      cwd: repository,
      env: { PATH, HOME, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
      // Ctrl-C ends the harness, and the harness ends its processes one by one.
      detached: true,
    })
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (stream !== null) createInterface({ input: stream }).on('line', (line) => this.#take(line))
    }
    this.#exited = once(this.#child, 'close').then(() => undefined)
  }

  get adminUrl(): URL {
    return new URL(`http://127.0.0.1:${this.#adminPort}`)
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  get hasExited(): boolean {
    return this.exit !== undefined
  }

  /** Whether somebody here asked it to end. */
  get wasEnded(): boolean {
    return this.#ending
  }

  /** Whether it was killed with -9 on purpose, so that its exit says nothing. */
  get wasKilled(): boolean {
    return this.#killed
  }

  /** The exit code, or the signal that ended it; undefined while it runs. */
  get exit(): number | NodeJS.Signals | undefined {
    return this.#child.signalCode ?? this.#child.exitCode ?? undefined
  }

  /** Resolves when `/health/ready` says 200. */
  async ready(): Promise<void> {
    const untilMs = performance.now() + readyWithinMs
    while (performance.now() < untilMs && !this.hasExited) {
      const answer = await fetch(new URL('/health/ready', this.adminUrl)).catch(() => undefined)
      await answer?.arrayBuffer()
      if (answer?.ok === true) return
      await wait(25)
    }
    const how = this.hasExited ? `ended with ${this.exit}` : `was not ready in ${readyWithinMs} ms`
    throw new Error(`${this.name} ${how}. Its last words:\n${this.lastWords()}`)
  }

  /** The sum over all series of each metric, by name; `name{label="value"}` for single series. */
  async metrics(): Promise<ReadonlyMap<string, number>> {
    const answer = await fetch(new URL('/metrics', this.adminUrl))
    return parseMetrics(await answer.text())
  }

  /** How many events the log's lines stand for. Complete once the process has exited. */
  countEvents(event: string, reason?: string): number {
    return this.log
      .filter((line) => line.event === event && (reason === undefined || line.reason === reason))
      .reduce((total, line) => total + (line.count ?? 1), 0)
  }

  /** Tells it to end with SIGTERM and resolves with its exit code, or the name of the signal that ended it. */
  async terminate(withinMs = 40_000): Promise<number | NodeJS.Signals | 'late'> {
    this.#ending = true
    if (!this.hasExited) this.#child.kill('SIGTERM')
    const late = await Promise.race([this.#exited.then(() => false), wait(withinMs, true, { ref: false })])
    if (late) {
      this.killNow()
      await this.#exited
      return 'late'
    }
    return this.exit ?? 'late'
  }

  /** kill -9. */
  async kill(): Promise<void> {
    this.#killed = true
    this.killNow()
    await this.#exited
  }

  /** Resolves with the exit code of a process that ends by itself. */
  async end(): Promise<number | null> {
    await this.#exited
    this.#ending = true
    return this.#child.exitCode
  }

  killNow(): void {
    this.#ending = true
    if (!this.hasExited) this.#child.kill('SIGKILL')
  }

  lastWords(): string {
    return [
      ...this.log.slice(-wordsKept).map((line) => JSON.stringify(line)),
      ...this.strayLines.slice(-wordsKept),
    ]
      .map((line) => `  ${line}`)
      .join('\n')
  }

  #take(line: string): void {
    if (line === '') return
    try {
      const parsed: unknown = JSON.parse(line)
      if (typeof parsed === 'object' && parsed !== null) {
        this.log.push(parsed as LogLine)
        return
      }
    } catch {
      // Kept below: what is not JSON is a finding.
    }
    this.strayLines.push(line)
  }
}

function parseMetrics(text: string): Map<string, number> {
  const values = new Map<string, number>()
  for (const line of text.split('\n')) {
    const found = /^(\w+)(\{[^}]*\})? (\S+)/.exec(line)
    if (found === null) continue
    const [, name = '', labels, number] = found
    values.set(name, (values.get(name) ?? 0) + Number(number))
    if (labels !== undefined) values.set(name + labels, Number(number))
  }
  return values
}
