import { expect, test } from 'vitest'
import { ByteBudget } from '../../src/foundation/byte-budget.ts'
import { Failure } from '../../src/foundation/failure.ts'
import { AnswerTimes } from '../../src/ingress/answer-times.ts'
import { IngressEvents } from '../../src/ingress/events.ts'
import { ExportPath } from '../../src/ingress/export.ts'
import { Reservation } from '../../src/ingress/reservation.ts'
import type { OverflowDecision } from '../../src/queue/overflow.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { manualClock } from '../support/clock.ts'
import { collectingLog, oneSpan } from './serve.ts'

/** The way of an export whose every commit takes so long, and what it kept of that. */
function exportsThatTake(commitMs: number, failure?: Failure) {
  const clock = manualClock()
  const answerTimes = new AnswerTimes(clock)
  let decision: OverflowDecision = { outcome: 'stage' }
  const exportPath = new ExportPath({
    stager: {
      async append() {
        await clock.advance(commitMs)
        if (failure !== undefined) throw failure
      },
    },
    overflow: { decide: () => decision, settled: () => undefined },
    maxBodyBytes: 1024,
    answerTimes,
    events: new IngressEvents({ log: collectingLog().log, metrics: createMetrics(), transport: 'http' }),
    clock,
  })
  const send = async (count: number, body = oneSpan) => {
    for (let request = 0; request < count; request++) {
      await exportPath.accept({
        signal: 'traces',
        format: 'protobuf',
        contentEncoding: undefined,
        body,
        tenant: 'default',
        requestId: 'r1',
        reservation: new Reservation(new ByteBudget(2048)),
      })
    }
  }
  const decide = (next: OverflowDecision) => {
    decision = next
  }
  return { answerTimes, send, decide }
}

test('the answer time is that of commits, whether they succeed or are given up', async () => {
  const slow = exportsThatTake(700)
  await slow.send(12)
  const given = exportsThatTake(600, new Failure('outage', 'no answer'))
  await given.send(12)
  expect([slow.answerTimes.medianSeconds, given.answerTimes.medianSeconds]).toEqual([0.7, 0.6])
})

test('requests that never reach the database do not make slow commits look fast', async () => {
  const { answerTimes, send, decide } = exportsThatTake(700)
  await send(12)
  await send(50, Buffer.from([0xff]))
  decide({ outcome: 'reject' })
  await send(50)
  decide({ outcome: 'drop', policy: 'drop' })
  await send(50)
  expect(answerTimes.medianSeconds).toBe(0.7)
})
