import type { Clock } from '../foundation/clock.ts'

const SILENT_MS = 2_000
const TERMINAL_EVERY_MS = 250
const FILE_EVERY_MS = 5_000

/** Where progress is said: standard error. */
export interface ProgressStream {
  isTTY?: boolean
  write(text: string): unknown
}

/**
 * How far a long command is, for whoever waits for it: nothing for the first two seconds, then a line that is written
 * over on a terminal, and a line every five seconds into a file.
 */
export class Progress {
  readonly #clock: Clock
  readonly #stream: ProgressStream
  #nextMs: number
  #isShown = false

  constructor(clock: Clock, stream: ProgressStream) {
    this.#clock = clock
    this.#stream = stream
    this.#nextMs = clock.monotonicMs() + SILENT_MS
  }

  /** May be said as often as something changes. */
  say(text: string): void {
    const nowMs = this.#clock.monotonicMs()
    if (nowMs < this.#nextMs) return
    this.#nextMs = nowMs + (this.#stream.isTTY ? TERMINAL_EVERY_MS : FILE_EVERY_MS)
    this.#isShown = true
    this.#stream.write(this.#stream.isTTY ? `\r\x1b[K${text}` : `${text}\n`)
  }

  /** Makes room for what is printed next. */
  end(): void {
    if (this.#isShown && this.#stream.isTTY) this.#stream.write('\r\x1b[K')
    this.#isShown = false
  }
}

const BAR_CHARACTERS = 20

/** How much of it is done, as a bar and in percent. */
export function progressBar(done: number, all: number): string {
  const share = all === 0 ? 1 : Math.min(1, done / all)
  const filled = '#'.repeat(Math.floor(share * BAR_CHARACTERS))
  return `[${filled.padEnd(BAR_CHARACTERS, '-')}] ${String(Math.floor(share * 100)).padStart(3)} %`
}
