import { checkStore, type Scenario, type ScenarioContext, setStage } from './scenario.ts'

const requestsMax = 1_500
/** A slow machine sends fewer in the time that there is; below this many it proves too little. */
const requestsMin = 300
const atOnce = 48
const tracesLookedUp = 25
const sendWithinMs = 25_000

/** Mixed traffic through two ingresses and two workers, some of it broken or abandoned by its client. */
export const exactlyOnce: Scenario = {
  name: 'exactly once',
  async play(context: ScenarioContext): Promise<void> {
    const { report, seed } = context
    const { stage, ledger, senderTo } = await setStage(context, 'exactly-once')
    const [first, second] = await Promise.all([stage.ingress(), stage.ingress()])
    const [worker] = await Promise.all([stage.worker(), stage.worker()])
    const sender = senderTo(first, second)
    report.progress(
      `sending up to ${requestsMax} requests of all signals, formats and encodings to two ingresses`,
    )
    await sender.send(requestsMax, atOnce, AbortSignal.timeout(sendWithinMs))

    const broken = sender.prepare(40).map((request) => ({
      ...request,
      // Cut in the middle: no encoding and no format makes a whole request of that.
      body: request.body.subarray(0, request.body.length >> 1),
    }))
    await sender.sendPrepared(broken, 8)
    const refused = new Set(broken.map(({ marker }) => marker))
    const answers = ledger.select(({ marker }) => refused.has(marker))
    report.check('40 requests cut in the middle are refused', {
      expected: '40 × 400',
      seen: `${answers.filter(({ answer }) => answer.kind === 'answered' && answer.status === 400).length} × 400`,
      ok: answers.every(({ answer }) => answer.kind === 'answered' && answer.status === 400),
    })
    const rest = ledger.select(({ marker }) => !refused.has(marker))
    const hungUp = rest.filter(({ answer }) => answer.kind === 'lost').length
    const taken = rest.filter(({ promised }) => promised === 'stored').length
    report.check('every other request of a client that stays gets 200', {
      expected: `${rest.length - hungUp} of ${rest.length - hungUp}, at most one client in a hundred gone`,
      seen: `${taken}, ${hungUp} clients gone (${ledger.describe()})`,
      ok:
        rest.length >= requestsMin &&
        taken === rest.length - hungUp &&
        hungUp <= Math.ceil(rest.length / 100),
    })

    // Looked up before the processes end: one traces request in a few, by one of its trace ids.
    const looked: { traceId: string; spans: number }[] = []
    const again = senderTo(first)
    report.progress('looking traces up through the admin port')
    for (const request of again.prepare(tracesLookedUp * 4)) {
      if (request.signal !== 'traces' || looked.length === tracesLookedUp) continue
      await again.sendOne(request, 0)
      const [trace] = request.traces
      if (trace !== undefined) looked.push({ traceId: trace[0], spans: trace[1] })
    }
    await lookUp(context, worker.adminUrl, looked)
    sender.close()
    again.close()
    await checkStore(context, stage, ledger, `every 200 is stored once and equal (seed ${seed})`)
  },
}

async function lookUp(
  { report }: ScenarioContext,
  admin: URL,
  traces: readonly { traceId: string; spans: number }[],
): Promise<void> {
  const wrong: string[] = []
  for (const { traceId, spans } of traces) {
    let found = -1
    for (const untilMs = performance.now() + 5_000; performance.now() < untilMs && found !== spans; ) {
      const answer = await fetch(new URL(`/api/v1/traces/${traceId}`, admin))
      found = spansIn(await answer.text())
    }
    if (found !== spans) wrong.push(`${traceId}: ${found} of ${spans} spans`)
  }
  report.check('traces are found through trace_index and byte ranges', {
    expected: `${traces.length} traces with all their spans`,
    seen: wrong.length === 0 ? `${traces.length} traces` : wrong.slice(0, 3).join('; '),
    ok: wrong.length === 0 && traces.length > 0,
  })
}

/** Spans in an answer of OTLP JSON. */
function spansIn(text: string): number {
  try {
    const { resourceSpans } = JSON.parse(text) as {
      resourceSpans?: { scopeSpans?: { spans?: unknown[] }[] }[]
    }
    return (resourceSpans ?? [])
      .flatMap(({ scopeSpans }) => scopeSpans ?? [])
      .reduce((total, { spans }) => total + (spans?.length ?? 0), 0)
  } catch {
    // Not there yet is an error body, whatever it looks like; the caller asks again.
    return -1
  }
}
