import { loadInProcess } from '../load-process.ts'
import { type BenchBody, loadOf } from './bodies.ts'
import type { Subject } from './subject.ts'

const connections = 64
const lateSeconds = 10

/** How long answers took when requests came at a fixed rate. */
export interface AnswerTimes {
  perSecond: number
  p50Ms: number
  p99Ms: number
  p999Ms: number
  /** Due and never sent. */
  unsent: number
  clientLagMs: number
}

/** Requests come at this rate whatever the answers do, and their times count from when they were due. */
export async function measureAnswerTimes(
  subject: Subject,
  body: BenchBody,
  { perSecond, seconds }: { perSecond: number; seconds: number },
): Promise<AnswerTimes> {
  await subject.settle()
  const load = { url: subject.url, seconds, connections, perSecond, lateSeconds }
  const { latencyMicroseconds, unsent, clientLagMicroseconds, sent } = await loadInProcess(loadOf(body, load))
  await subject.drained(sent)
  return {
    perSecond,
    p50Ms: latencyMicroseconds.p50 / 1000,
    p99Ms: latencyMicroseconds.p99 / 1000,
    p999Ms: latencyMicroseconds.p999 / 1000,
    unsent,
    clientLagMs: clientLagMicroseconds / 1000,
  }
}

/** The columns of a table of them, behind a first one. */
export const answerTimesColumns = ['requests/s', 'p50', 'p99', 'p99.9', 'unsent', 'client late by'] as const
export const answerTimesWidths = [10, 10, 10, 10, 6, 14] as const

export function answerTimesCells(times: AnswerTimes): string[] {
  return [
    String(times.perSecond),
    `${times.p50Ms.toFixed(1)} ms`,
    `${times.p99Ms.toFixed(1)} ms`,
    `${times.p999Ms.toFixed(1)} ms`,
    String(times.unsent),
    `${times.clientLagMs.toFixed(0)} ms`,
  ]
}
