/** A program of its own that prints them as JSON: in a test, the runner stands between the modules and slows every loop. */
import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import { encodeSummary } from '../../src/otlp/summary.ts'
import { walk } from '../../src/otlp/walk.ts'
import { type CostlyRequest, costlyRequests } from './costly-requests.ts'

const turnsMin = 5
const turnsMax = 40
/** What is below this needs no further turn. */
const goodMs = 40

/** All that happens to a request without a pause. */
function handle({ signal, format, body }: CostlyRequest): Buffer {
  return encodeSummary(walk(signal, format === 'json' ? protobufFromJson(signal, body) : body).summary)
}

/**
 * The time of this thread alone. Other processes make it longer all the same, by what they take of the caches and of
 * a shared core, and so do the compiler and the collector, but never each time: the least of several turns counts.
 */
function leastHoldMs(request: CostlyRequest): number {
  let leastMs = Number.POSITIVE_INFINITY
  for (let turn = 0; turn < turnsMax && (turn < turnsMin || leastMs > goodMs); turn++) {
    const before = process.threadCpuUsage()
    handle(request)
    const { user, system } = process.threadCpuUsage(before)
    leastMs = Math.min(leastMs, (user + system) / 1000)
  }
  return leastMs
}

/** For how long each costly request holds the event loop, in milliseconds by name. */
export function holdTimesMs(): Record<string, number> {
  const holds = costlyRequests.map((request) => [`${request.format}: ${request.name}`, leastHoldMs(request)])
  return Object.fromEntries(holds) as Record<string, number>
}

if (import.meta.main) console.log(JSON.stringify(holdTimesMs()))
