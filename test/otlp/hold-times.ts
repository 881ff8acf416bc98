/** A program of its own that prints them as JSON: in a test, the runner stands between the modules and slows every loop. */
import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import { encodeSummary } from '../../src/otlp/summary.ts'
import { walk } from '../../src/otlp/walk.ts'
import { type CostlyRequest, costlyRequests } from './costly-requests.ts'

const turnsMin = 5
const turnsMax = 40
/** What is below this needs no further turn. */
const goodMs = 30
/** What `referenceLoop` takes on one core of the machine that the figures of docs/performance.md are of, when it is quiet. */
const referenceMs = 20

const referenceBytes = Uint8Array.from({ length: 1024 * 1024 }, (_, at) => (at * 131) & 0xff)

/** Ten times over a megabyte, as our loops go: a byte, a branch, a little arithmetic. */
function referenceLoop(): number {
  let sum = 0
  for (let at = 0; at < 10 * referenceBytes.length; at++) {
    const byte = referenceBytes[at % referenceBytes.length] as number
    sum = (byte & 1) === 0 ? (sum + byte) | 0 : Math.imul(sum, 31) ^ byte
  }
  return sum
}

/** All that happens to a request without a pause. */
function handle({ signal, format, body }: CostlyRequest): Buffer {
  return encodeSummary(walk(signal, format === 'json' ? protobufFromJson(signal, body) : body).summary)
}

/** The time of this thread alone. */
function threadMs(work: () => unknown): number {
  const before = process.threadCpuUsage()
  work()
  const { user, system } = process.threadCpuUsage(before)
  return (user + system) / 1000
}

/**
 * Other processes make the time of a thread longer, by what they take of the caches and of a shared core, and so do the
 * compiler and the collector, but never each time: the least of several turns counts. A core that is slow all the while is
 * slow for the loop of reference, too, and the time is that of the core that its time is known of.
 */
function leastHoldMs(request: CostlyRequest): number {
  let leastMs = Number.POSITIVE_INFINITY
  let leastReferenceMs = Number.POSITIVE_INFINITY
  for (let turn = 0; turn < turnsMax && (turn < turnsMin || leastMs > goodMs); turn++) {
    leastMs = Math.min(
      leastMs,
      threadMs(() => handle(request)),
    )
    leastReferenceMs = Math.min(leastReferenceMs, threadMs(referenceLoop))
  }
  return leastMs / Math.max(1, leastReferenceMs / referenceMs)
}

/** For how long each costly request holds the event loop, in milliseconds by name. */
export function holdTimesMs(): Record<string, number> {
  const holds = costlyRequests.map((request) => [`${request.format}: ${request.name}`, leastHoldMs(request)])
  return Object.fromEntries(holds) as Record<string, number>
}

if (import.meta.main) console.log(JSON.stringify(holdTimesMs()))
