import {
  type AnswerTimes,
  answerTimesCells,
  answerTimesColumns,
  answerTimesWidths,
  measureAnswerTimes,
} from './answer-times.ts'
import type { BenchPart } from './bench.ts'
import { smallBody } from './bodies.ts'
import { measureSaturation } from './saturation.ts'
import { startSluice } from './sluice.ts'
import { startSteadyMachine } from './steady-machine.ts'

const shares = [0.1, 0.3, 0.5, 0.7, 0.8, 0.9]
const quickShares = [0.1, 0.5, 0.9]
const seconds = 10

export interface LadderFigures {
  body: string
  /** Requests a second at saturation, of which the steps are shares. */
  peak: number
  steps: LadderStep[]
}

export interface LadderStep extends AnswerTimes {
  share: number
}

/** Answer times by requests a second, from a tenth of what the system bears to nine tenths. */
export const ladder: BenchPart = {
  name: 'ladder',
  async measure({ say, isQuick, settings }) {
    const body = smallBody
    const machine = await startSteadyMachine(say)
    try {
      const sluice = await startSluice(machine, 'ladder', settings)
      try {
        const { requestsPerSecond: peak } = await measureSaturation(sluice, body)
        const steps: LadderStep[] = []
        for (const share of isQuick ? quickShares : shares) {
          const perSecond = Math.round(peak * share)
          const times = await measureAnswerTimes(sluice, body, { perSecond, seconds })
          const step = { share, ...times }
          steps.push(step)
          say(
            `${perSecond} requests a second: p50 ${step.p50Ms.toFixed(1)} ms, p99 ${step.p99Ms.toFixed(1)} ms`,
          )
        }
        const figures: LadderFigures = { body: body.name, peak, steps }
        return {
          tables: [
            {
              title: `Answer times of ${body.name} by rate, open loop, ${seconds} s each; the peak is ${peak.toFixed(0)}/s`,
              rows: [
                ['of the peak', ...answerTimesColumns],
                ...steps.map((one) => [`${(one.share * 100).toFixed(0)} %`, ...answerTimesCells(one)]),
              ],
              widths: [11, ...answerTimesWidths],
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
