import { type DestinationStream, destination as fileDestination, pino } from 'pino'
import type { Clock } from '../foundation/clock.ts'
import { Failure } from '../foundation/failure.ts'

export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const
export type LogLevel = (typeof logLevels)[number]
type WrittenLevel = Exclude<LogLevel, 'silent'>

/** What a line says beside its event. Any other field may stand in it too. */
export interface LogFields {
  /** Why it happened, as a word: see section "Log events" of the docs. */
  readonly reason?: string
  readonly request_id?: string
  readonly batch_id?: string
  /** Whatever was thrown. Written with its kind, code, message and causes. */
  readonly error?: unknown
  readonly [field: string]: unknown
}

/**
 * One JSON object a line, one line an event.
 *
 * An event that repeats is written at once the first time, then summarised once a second: the line of the last one
 * with `count`, the number that it stands for. Nothing is written for a second without any. Metrics count them all.
 */
export interface Log {
  debug(event: string, fields?: LogFields): void
  info(event: string, fields?: LogFields): void
  warn(event: string, fields?: LogFields): void
  error(event: string, fields?: LogFields): void
  /** Writes the summaries that are still owed and waits until everything is with the operating system. */
  close(): Promise<void>
}

/** Events that come thousands of times a second when they come: one line a second and reason is enough. */
const repeatingEvents: ReadonlySet<string> = new Set([
  'rate_limited',
  'queue_saturated',
  'load_shedding',
  'processing_paused',
  'batch_persist_failed',
])

const summaryIntervalMs = 1000
/** Lines a second of any other event and reason, so that no fault of a client can flood the log. */
const linesPerInterval = 20
/** Beyond this many different events and reasons at once, an event's reasons are summarised together. */
const eventsTrackedMax = 256
/** Characters of one text in a line: an error may quote what it was given. */
const textCharactersMax = 2000
const causesMax = 5
/** Bytes that wait for a slow reader of the log; what comes on top is lost, for memory is bounded. */
const waitingBytesMax = 1 << 20
/** Of so much at once, lines are not mixed with what other processes write to the same pipe (pipe(7), PIPE_BUF). */
const writtenBytesMax = 4096

const secretField = /password|secret|authorization|credential|api_?key|access_?key|^token$|_token$/i

/** A text without the credentials of URLs in it, and of bounded length. */
function safeText(text: string): string {
  const cut = text.length > textCharactersMax ? `${text.slice(0, textCharactersMax)}…` : text
  return cut.replaceAll(/(\b[a-z][a-z0-9+.-]*:\/\/)[^\s/]*:[^\s]*@/gi, '$1******@')
}

interface WrittenError {
  kind?: string
  code?: string
  message: string
  fix?: string
  stack?: string
  cause?: WrittenError | string
}

function writtenError(thrown: unknown, causesLeft = causesMax): WrittenError {
  if (!(thrown instanceof Error)) return { message: safeText(String(thrown)) }
  const { code } = thrown as { code?: unknown }
  // Node's errors for a host with several addresses have no message of their own.
  const parts =
    thrown instanceof AggregateError ? thrown.errors.map((error) => writtenError(error, 0).message) : []
  return {
    kind: thrown instanceof Failure ? thrown.kind : thrown.name,
    ...(typeof code === 'string' || typeof code === 'number' ? { code: String(code) } : {}),
    message: safeText([thrown.message, ...parts].filter((part) => part !== '').join('; ')),
    ...(thrown instanceof Failure && thrown.fix !== undefined ? { fix: thrown.fix } : {}),
    // An error that somebody classified says enough; where a bug is, only the stack tells.
    ...(!(thrown instanceof Failure) && thrown.cause === undefined && thrown.stack !== undefined
      ? { stack: safeText(thrown.stack) }
      : {}),
    ...(thrown.cause === undefined || causesLeft === 0
      ? {}
      : { cause: writtenError(thrown.cause, causesLeft - 1) }),
  }
}

function safeFields(fields: LogFields): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => {
      if (name === 'error' || value instanceof Error) return [name, writtenError(value)]
      if (secretField.test(name)) return [name, '******']
      if (typeof value === 'bigint') return [name, String(value)]
      return [name, typeof value === 'string' ? safeText(value) : value]
    }),
  )
}

/** One event and reason within its current second. */
interface Repetition {
  startedMs: number
  written: number
  owed: number
  level: WrittenLevel
  event: string
  last: LogFields
}

function standardOutput(): DestinationStream {
  const output = fileDestination({
    dest: 1,
    sync: false,
    minLength: 1,
    maxLength: waitingBytesMax,
    maxWrite: writtenBytesMax,
  })
  output.on('error', () => {
    // A log that cannot be written (a full disk, a closed file) must not end the process that keeps the data.
  })
  // pino flushes at exit, and sonic-boom 4.2 then tries for ever when the write fails: the process would never end.
  // Whoever wants the last lines awaits `close`.
  output.flushSync = () => undefined
  return output
}

/**
 * Makes the log of a process.
 *
 * @param process stands in each line, where several processes write to one log.
 * @param destination takes whole lines; standard output when left out. It is written to without waiting for it.
 */
export function createLogger({
  level,
  clock,
  process,
  destination,
}: {
  level: LogLevel
  clock: Clock
  process?: number
  destination?: DestinationStream
}): Log {
  const output = destination ?? standardOutput()
  const lines = pino(
    {
      level,
      base: process === undefined ? null : { process },
      timestamp: () => `,"time":"${new Date(clock.wallMs()).toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    output,
  )
  const repetitions = new Map<string, Repetition>()
  const closing = new AbortController()
  let summarising: Promise<void> | undefined

  function write(level: WrittenLevel, event: string, fields: LogFields, count?: number): void {
    lines[level]({ event, ...safeFields(fields), ...(count === undefined ? {} : { count }) })
  }

  function log(level: WrittenLevel, event: string, fields: LogFields = {}): void {
    if (!lines.isLevelEnabled(level)) return
    const reason = repetitions.size < eventsTrackedMax ? (fields.reason ?? '') : ''
    const key = `${level} ${event} ${reason}`
    const repetition = repetitions.get(key)
    if (closing.signal.aborted) {
      write(level, event, fields)
    } else if (repetition === undefined) {
      repetitions.set(key, {
        startedMs: clock.monotonicMs(),
        written: 1,
        owed: 0,
        level,
        event,
        last: fields,
      })
      write(level, event, fields)
      summarising ??= summarise()
    } else if (repetition.written < (repeatingEvents.has(event) ? 1 : linesPerInterval)) {
      repetition.written++
      write(level, event, fields)
    } else {
      repetition.owed++
      repetition.last = fields
    }
  }

  /** Runs while anything is tracked, so that an idle process has no timer. */
  async function summarise(): Promise<void> {
    while (repetitions.size > 0 && !closing.signal.aborted) {
      const oldestMs = Math.min(...[...repetitions.values()].map(({ startedMs }) => startedMs))
      await clock.sleep(Math.max(1, oldestMs + summaryIntervalMs - clock.monotonicMs()), closing.signal)
      const nowMs = clock.monotonicMs()
      for (const [key, repetition] of repetitions) {
        if (nowMs - repetition.startedMs < summaryIntervalMs) continue
        if (repetition.owed === 0) {
          repetitions.delete(key)
          continue
        }
        writeOwed(repetition)
        // The summary is this second's one line, so what comes within it is owed again.
        repetition.startedMs = nowMs
        repetition.written = Number.POSITIVE_INFINITY
      }
    }
    summarising = undefined
  }

  function writeOwed(repetition: Repetition): void {
    write(repetition.level, repetition.event, repetition.last, repetition.owed)
    repetition.owed = 0
  }

  return {
    debug: (event, fields) => log('debug', event, fields),
    info: (event, fields) => log('info', event, fields),
    warn: (event, fields) => log('warn', event, fields),
    error: (event, fields) => log('error', event, fields),
    async close() {
      closing.abort()
      await summarising
      for (const repetition of repetitions.values()) {
        if (repetition.owed > 0) writeOwed(repetition)
      }
      repetitions.clear()
      // Called when all is written. An error is that of the fsync behind it, which pipes and terminals refuse.
      await new Promise<void>((resolve) => lines.flush(() => resolve()))
    },
  }
}
