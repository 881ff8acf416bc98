import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { ensurePython } from '../scripts/python.ts'
import { type Signal, signals } from '../src/otlp/signal.ts'
import type { FuzzEncoding } from './fuzz-framing.ts'

/** A question to the other decoder: whether it decodes this to the bottom. */
export interface Question {
  readonly signal: Signal
  readonly encoding: Exclude<FuzzEncoding, 'zstd'>
  readonly framed: boolean
  readonly body: Buffer
}

export interface Verdict {
  /** To the bottom, of profiles as far as OTLP is stable. */
  readonly decoded: boolean
  /** As this release of opentelemetry-proto knows the signal. */
  readonly inFull: boolean
  /** Why it was not. */
  readonly reason: string
}

const aroundOf = { identity: 0, gzip: 1, deflate: 2 } as const
const framedBit = 0x80

/** A process of Python that decodes with opentelemetry-proto what it is given, for as long as it is wanted. */
export class FuzzJudge {
  readonly #process: ChildProcessByStdio<Writable, Readable, Readable>
  readonly #output: AsyncIterator<Buffer>
  #answers: Buffer = Buffer.alloc(0)
  #stderr = ''
  #asking: Promise<unknown> = Promise.resolve()

  private constructor(program: string) {
    this.#process = spawn(program, ['-I', path.join(import.meta.dirname, 'fuzz_decoder.py')], {
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    this.#output = this.#process.stdout[Symbol.asyncIterator]() as AsyncIterator<Buffer>
    this.#process.stderr.on('data', (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString()).slice(-2000)
    })
    // Said by what it wrote to stderr, and by the end of its output.
    this.#process.stdin.on('error', () => undefined)
  }

  /** @throws Error with a sentence when Python is absent. */
  static async start(): Promise<FuzzJudge> {
    return new FuzzJudge(await ensurePython())
  }

  /** One question after the other; answers come in the order of the questions. */
  ask(questions: readonly Question[]): Promise<Verdict[]> {
    const asked = this.#asking.then(() => this.#ask(questions))
    this.#asking = asked.catch(() => undefined)
    return asked
  }

  async #ask(questions: readonly Question[]): Promise<Verdict[]> {
    const head = Buffer.alloc(4)
    head.writeUInt32LE(questions.length)
    const parts: Buffer[] = [head]
    for (const { signal, encoding, framed, body } of questions) {
      const start = Buffer.alloc(6)
      start[0] = signals[signal].number
      start[1] = aroundOf[encoding] | (framed ? framedBit : 0)
      start.writeUInt32LE(body.length, 2)
      parts.push(start, body)
    }
    this.#process.stdin.write(Buffer.concat(parts))
    const verdicts: Verdict[] = []
    while (verdicts.length < questions.length) {
      const decoded = await this.#read(5)
      const reason = await this.#read(decoded.readUInt32LE(1))
      verdicts.push({ decoded: decoded[0] !== 0, inFull: decoded[0] === 2, reason: reason.toString() })
    }
    return verdicts
  }

  async #read(length: number): Promise<Buffer> {
    while (this.#answers.length < length) {
      const { value, done } = await this.#output.next()
      if (done === true) throw new Error(`the other decoder ended: ${this.#stderr.trim()}`)
      this.#answers = Buffer.concat([this.#answers, value])
    }
    const bytes = this.#answers.subarray(0, length)
    this.#answers = this.#answers.subarray(length)
    return bytes
  }

  async stop(): Promise<void> {
    const ended = this.#process.exitCode === null ? once(this.#process, 'exit') : undefined
    this.#process.stdin.end()
    await ended
  }
}
