import { expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { type Ingress, oneSpan, send, serveIngress } from './serve.ts'

/** What an exporter makes of an answer, as its authors published it. */
interface Rule {
  readonly exporters: string
  readonly succeeds: (status: number) => boolean
  /** Whether it sends the batch again after an answer that is no success; else it gives the batch up. */
  readonly repeats: (status: number) => boolean
}

const only200GivesUp: Rule = {
  exporters: 'Go 1.16 and Ruby before 2026-02, which take 200 alone and give up what they cannot name',
  succeeds: (status) => status === 200,
  repeats: (status) => status === 429 || status === 503,
}
const only200Repeats: Rule = {
  exporters: 'Pebble, which takes 200 and 204 alone and keeps the rest to send it again',
  succeeds: (status) => status === 200 || status === 204,
  repeats: () => true,
}
const any2xx: Rule = {
  exporters: 'SDKs and Collectors of today, which take any 2xx',
  succeeds: (status) => status >= 200 && status < 300,
  repeats: (status) => [429, 502, 503, 504].includes(status),
}
const final429: Rule = {
  exporters: 'Python until the middle of 2026, which repeats 408 and all 5xx, and for which 429 is final',
  succeeds: (status) => status >= 200 && status < 300,
  repeats: (status) => status === 408 || status >= 500,
}

const ATTEMPTS_MAX = 5

/** Exports one span by that rule, without its pauses: how often it sent it, and whether it believes that it arrived. */
async function exportBy(rule: Rule, port: number, onRefused: () => unknown = () => undefined) {
  for (let sent = 1; ; sent++) {
    const { status } = await send(port, { body: oneSpan })
    if (status >= 400) await onRefused()
    if (rule.succeeds(status)) return { sent, believes: 'delivered' }
    if (!rule.repeats(status) || sent === ATTEMPTS_MAX) return { sent, believes: 'lost' }
  }
}

async function droppedItems({ metrics }: Ingress): Promise<number> {
  const metric = await metrics.registry.getSingleMetric('sluice_dropped_items_total')?.get()
  return metric?.values.reduce((sum, { value }) => sum + value, 0) ?? 0
}

for (const [rule, status, expected] of [
  [any2xx, 202, { sent: 1, believes: 'delivered', counted: 1 }],
  [any2xx, 200, { sent: 1, believes: 'delivered', counted: 1 }],
  // Their users read of a failure, which is true: the span was dropped.
  [only200GivesUp, 202, { sent: 1, believes: 'lost', counted: 1 }],
  [only200GivesUp, 200, { sent: 1, believes: 'delivered', counted: 1 }],
  // Each repeat finds the queue as full, and is counted as dropped again.
  [only200Repeats, 202, { sent: 5, believes: 'lost', counted: 5 }],
  [only200Repeats, 200, { sent: 1, believes: 'delivered', counted: 1 }],
] as const) {
  const { sent, believes } = expected
  test(`D7: dropped and answered ${status}, ${rule.exporters}: sent ${sent} times, believed to be ${believes}`, async () => {
    await using ingress = await serveIngress({ droppedStatus: status })
    ingress.decide({ outcome: 'drop', policy: 'drop' })
    const exported = await exportBy(rule, ingress.port)
    expect({ ...exported, counted: await droppedItems(ingress) }).toEqual(expected)
    expect(ingress.stager.appended).toBe(0)
  })
}

for (const rule of [any2xx, only200GivesUp, only200Repeats, final429]) {
  test(`D7: what was committed is sent once by ${rule.exporters}`, async () => {
    await using ingress = await serveIngress()
    expect(await exportBy(rule, ingress.port)).toEqual({ sent: 1, believes: 'delivered' })
    expect(ingress.stager.rows.length).toBe(1)
  })
}

/** Each state in which a sender shall come again, how to bring it about, and how it ends. */
const passing: {
  what: string
  /** Whether the sender for whom 429 is final brings its span in. */
  survives429: boolean
  options?: Parameters<typeof serveIngress>[0]
  begin: (ingress: Ingress) => Promise<void> | void
  end: (ingress: Ingress) => Promise<void> | void
}[] = [
  {
    what: 'a full queue under reject',
    survives429: false,
    begin: (ingress) => ingress.decide({ outcome: 'reject' }),
    end: (ingress) => ingress.decide({ outcome: 'stage' }),
  },
  {
    what: 'a limited rate',
    survives429: false,
    options: { rateLimit: { perSecond: 2, burst: 1 } },
    begin: async ({ port }) => {
      await send(port, { path: '/nope' })
    },
    end: () => new Promise((resolve) => setTimeout(resolve, 600)),
  },
  {
    what: 'a database that is away',
    survives429: true,
    begin: ({ stager }) => {
      stager.failure = new Failure('outage', 'connection refused', { code: 'ECONNREFUSED' })
    },
    end: ({ stager }) => {
      stager.failure = undefined
    },
  },
  {
    what: 'a bug of ours',
    survives429: true,
    begin: ({ stager }) => {
      stager.failure = new TypeError('x is not a function')
    },
    end: ({ stager }) => {
      stager.failure = undefined
    },
  },
  {
    what: 'bytes in flight that are used up',
    survives429: true,
    begin: ({ budget }) => {
      budget.tryTake(budget.limitBytes)
    },
    end: ({ budget }) => budget.giveBack(budget.limitBytes),
  },
]

for (const { what, survives429, options, begin, end } of passing) {
  test(`D9: through ${what} a sender of today brings its span in, and one for whom 429 is final ${survives429 ? 'does too' : 'loses it'}`, async () => {
    await using ingress = await serveIngress(options)
    const outcomes = []
    for (const rule of [any2xx, final429]) {
      await begin(ingress)
      outcomes.push(await exportBy(rule, ingress.port, () => end(ingress)))
    }
    expect(outcomes).toEqual([
      { sent: 2, believes: 'delivered' },
      survives429 ? { sent: 2, believes: 'delivered' } : { sent: 1, believes: 'lost' },
    ])
    expect(ingress.stager.rows.length).toBe(survives429 ? 2 : 1)
  })
}
