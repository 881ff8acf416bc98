import path from 'node:path'
import pLimit from 'p-limit'
import { Piscina } from 'piscina'
import type { Clock } from '../foundation/clock.ts'
import type { Format } from '../otlp/answer.ts'
import { OtlpError } from '../otlp/error.ts'
import type { ReadRequest } from '../otlp/read-request.ts'
import type { Signal } from '../otlp/signal.ts'
import type { LargeBodyAnswer, LargeBodyTask } from './large-body-thread.ts'

/** A thread takes 80 ms and 12 MB to begin; it is kept for so long after its last body. */
const IDLE_MS = 30_000
/** A body whose turn has not come by then is answered: its sender would not wait much longer. */
const WAITING_MS_MAX = 5_000
/** One is unpacked while another is read. */
const TURNS_AT_ONCE = 2
/** Three times what the costliest body of the largest `MAX_BODY_BYTES` takes. */
const READING_MS_MAX = 120_000

/**
 * Where bodies are read that would hold the event loop for too long: in a thread of its own, one after the other. Senders of
 * other requests, and whoever asks for health, do not wait for them.
 */
export class LargeBodies {
  readonly #clock: Clock
  readonly #turns = pLimit(TURNS_AT_ONCE)
  /** The library has a queue, too, but what waits there when its thread dies would wait for the next task. */
  readonly #thread = pLimit(1)
  readonly #threads = new Piscina<LargeBodyTask, LargeBodyAnswer>({
    filename: path.join(import.meta.dirname, `large-body-thread${path.extname(import.meta.filename)}`),
    minThreads: 0,
    maxThreads: 1,
    idleTimeout: IDLE_MS,
    recordTiming: false,
  })

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /**
   * Does what a large body needs, together with at most one other, so that few of them are unpacked at a time. Answers
   * undefined when the turn of this one did not come within 5 s.
   */
  inTurn<Result>(work: () => Promise<Result>): Promise<Result | undefined> {
    let state: 'waiting' | 'begun' | 'late' = 'waiting'
    const begun = new AbortController()
    const turn = this.#turns(async () => {
      if (state === 'late') return undefined
      state = 'begun'
      begun.abort(null)
      return await work()
    })
    const waited = this.#clock.sleep(WAITING_MS_MAX, begun.signal).then(() => {
      if (state === 'begun') return turn
      state = 'late'
      return undefined
    })
    return Promise.race([turn, waited])
  }

  /**
   * The same as `readRequest`, elsewhere. The memory of `bytes` is moved to the thread: nobody may look at it any more.
   *
   * @throws {OtlpError} as `readRequest` does, and what ended the thread; a thread that reads for two minutes is ended.
   */
  read(signal: Signal, format: Format, bytes: Buffer): Promise<ReadRequest> {
    return this.#thread(async () => {
      const answer = await this.#threads.run(
        { signal, format, bytes },
        { transferList: [bytes.buffer as ArrayBuffer], signal: this.#clock.deadline(READING_MS_MAX) },
      )
      if ('refused' in answer) throw new OtlpError(answer.refused, answer.rule)
      return { ...answer, body: bufferOf(answer.body), summary: bufferOf(answer.summary) }
    })
  }
}

function bufferOf({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength)
}
