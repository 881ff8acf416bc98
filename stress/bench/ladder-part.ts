import { loadInProcess } from '../load-process.ts'
import { Machine } from '../machine.ts'
import type { BenchPart } from './bench.ts'
import { loadOf, smallBody } from './bodies.ts'
import { measureSaturation } from './saturation.ts'
import { startSluice } from './sluice.ts'

const shares = [0.1, 0.3, 0.5, 0.7, 0.8, 0.9]
const quickShares = [0.1, 0.5, 0.9]
const openLoop = { seconds: 10, connections: 64, lateSeconds: 10 } as const

export interface LadderFigures {
  body: string
  /** Requests a second at saturation, of which the steps are shares. */
  peak: number
  steps: LadderStep[]
}

export interface LadderStep {
  share: number
  perSecond: number
  p50Ms: number
  p99Ms: number
  p999Ms: number
  unsent: number
  clientLagMs: number
}

/** Answer times by requests a second, from a tenth of what the system bears to nine tenths. */
export const ladder: BenchPart = {
  name: 'ladder',
  async measure({ say, isQuick, settings }) {
    const body = smallBody
    say('starting PostgreSQL and MinIO')
    const machine = await Machine.start()
    try {
      const sluice = await startSluice(machine, 'ladder', settings)
      try {
        const { requestsPerSecond: peak } = await measureSaturation(sluice, body)
        const steps: LadderStep[] = []
        for (const share of isQuick ? quickShares : shares) {
          const perSecond = Math.round(peak * share)
          await sluice.settle()
          const { latencyMicroseconds, unsent, clientLagMicroseconds, sent } = await loadInProcess(
            loadOf(body, { url: sluice.url, perSecond, ...openLoop }),
          )
          await sluice.drained(sent)
          const step = {
            share,
            perSecond,
            p50Ms: latencyMicroseconds.p50 / 1000,
            p99Ms: latencyMicroseconds.p99 / 1000,
            p999Ms: latencyMicroseconds.p999 / 1000,
            unsent,
            clientLagMs: clientLagMicroseconds / 1000,
          }
          steps.push(step)
          say(
            `${perSecond} requests a second: p50 ${step.p50Ms.toFixed(1)} ms, p99 ${step.p99Ms.toFixed(1)} ms`,
          )
        }
        const figures: LadderFigures = { body: body.name, peak, steps }
        return {
          tables: [
            {
              title: `Answer times of ${body.name} by rate, open loop, ${openLoop.seconds} s each; the peak is ${peak.toFixed(0)}/s`,
              rows: [
                ['of the peak', 'requests/s', 'p50', 'p99', 'p99.9', 'unsent', 'client late by'],
                ...steps.map((one) => [
                  `${(one.share * 100).toFixed(0)} %`,
                  String(one.perSecond),
                  `${one.p50Ms.toFixed(1)} ms`,
                  `${one.p99Ms.toFixed(1)} ms`,
                  `${one.p999Ms.toFixed(1)} ms`,
                  String(one.unsent),
                  `${one.clientLagMs.toFixed(0)} ms`,
                ]),
              ],
              widths: [11, 10, 10, 10, 10, 6, 14],
            },
          ],
          goals: [],
          figures,
        }
      } finally {
        await sluice.close()
      }
    } finally {
      await machine.stop()
    }
  },
}
