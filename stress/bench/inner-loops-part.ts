import { holdTimesMs } from '../../test/otlp/hold-times.ts'
import type { Bench, BenchPart } from './bench.ts'
import { benchLoops } from './inner-loops.ts'

/** The others are shorter. */
const holdsShown = 8

/** The loops on a request's way, and what holds the event loop longest. */
export const innerLoops: BenchPart = {
  name: 'loops',
  async measure({ say }: Bench) {
    const loops = await benchLoops(say)
    const holds = holdTimesMs()
    const longest = Object.entries(holds).sort(([, one], [, other]) => other - one)
    return {
      tables: [
        {
          title:
            'Inner loops; items/s and MB/s are those of the best of seven rounds, the median of its turns',
          rows: [
            ['loop', 'mean', 'best round', 'items/s', 'MB/s'],
            ...loops.map(({ name, meanMicroseconds, bestMicroseconds, items, bytes }) => [
              name,
              `${meanMicroseconds.toFixed(1)} µs`,
              `${bestMicroseconds.toFixed(1)} µs`,
              `${(items / bestMicroseconds).toFixed(3)} M`,
              (bytes / bestMicroseconds).toFixed(0),
            ]),
          ],
          widths: [48, 12, 12, 12, 8],
        },
        {
          title: 'Requests of 1 MB that hold the event loop longest',
          rows: [
            ['request', 'hold'],
            ...longest.slice(0, holdsShown).map(([name, ms]) => [name, `${ms.toFixed(1)} ms`]),
          ],
          widths: [56, 10],
        },
      ],
      goals: [],
      figures: { loops, holds },
    }
  },
}
