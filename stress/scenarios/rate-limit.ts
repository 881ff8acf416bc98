import { checkStore, retryAfters, type Scenario, type ScenarioContext, setStage } from './scenario.ts'

const perSecond = 150
const burst = 30
const seconds = 6
const allowed = 0.05
const itemsMax = 3

/** Three times the rate for six seconds, at a fixed schedule. */
export const rateLimit: Scenario = {
  name: 'rate limit',
  async play(context: ScenarioContext): Promise<void> {
    const { report } = context
    const { stage, ledger, senderTo } = await setStage(context, 'rate-limit', { itemsMax, hangUps: false })
    const ingress = await stage.ingress({
      ENABLE_RATE_LIMITING: 'true',
      RATE_LIMIT_RPS: perSecond.toFixed(1),
      RATE_LIMIT_BURST: String(burst),
    })
    await stage.worker()
    const sender = senderTo(ingress)
    report.progress(
      `sending ${3 * perSecond} requests a second for ${seconds} s against a limit of ${perSecond}`,
    )
    await sender.sendAtRate(3 * perSecond, seconds)
    sender.close()
    const limited = ledger.withStatus(429)
    const others = ledger.entries.size - limited.length
    const rate = (others - burst) / seconds
    report.check('rate limiting keeps its rate', {
      expected: `${perSecond}/s ± ${allowed * 100} % over ${seconds} s, beside a burst of ${burst}`,
      seen: `${rate.toFixed(1)}/s (${ledger.describe()})`,
      ok: Math.abs(rate / perSecond - 1) <= allowed,
    })
    const told = retryAfters(limited)
    const metric = (await ingress.process.metrics()).get('sluice_rate_limited_total') ?? 0
    await checkStore(context, stage, ledger, 'rate limiting: every 200 is stored, no 429 is')
    const logged = ingress.process.countEvents('rate_limited', 'limit_exceeded')
    report.check('rate limiting: 429 with a wait, counted in metric and log', {
      expected: `Retry-After 1 to 5; ${limited.length} in sluice_rate_limited_total and as rate_limited/limit_exceeded`,
      seen: `${told.seen}; ${metric} and ${logged}`,
      ok: told.ok && metric === limited.length && logged === limited.length && limited.length > 0,
    })
  },
}
