import type { Config } from '../config.ts'
import type { Clock } from '../foundation/clock.ts'
import type { LifeCycle } from '../foundation/life-cycle.ts'
import type { AnswerTimes } from '../ingress/answer-times.ts'
import { type Load, LoadShedding, overloadReasons } from '../ingress/load-shedding.ts'
import { CpuShare, openMemoryShare } from '../ingress/process-load.ts'
import type { Backlog } from '../queue/count-backlog.ts'
import type { Overflow } from '../queue/overflow.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'

/** What refuses a share of the requests under overload; it stops after the listeners. */
export async function startLoadShedding(
  life: LifeCycle,
  config: Config,
  { log, metrics, clock, random }: { log: Log; metrics: Metrics; clock: Clock; random: () => number },
  { overflow, answerTimes }: { overflow: Pick<Overflow, 'backlog'>; answerTimes: AnswerTimes },
): Promise<LoadShedding> {
  const cpu = new CpuShare(clock)
  const memoryShare = await openMemoryShare()
  const thresholds: Load = {
    cpu: config.LOAD_SHEDDING_CPU_PERCENT / 100,
    memory: config.LOAD_SHEDDING_MEMORY_PERCENT / 100,
    backlog: 1,
    answer_time: config.LOAD_SHEDDING_ANSWER_SECONDS,
  }
  const loadShedding = new LoadShedding({
    read: async () => ({
      cpu: cpu.look(),
      memory: await memoryShare(),
      backlog: fullness(overflow.backlog, config),
      answer_time: answerTimes.medianSeconds,
    }),
    thresholds,
    onLooked: (load) => {
      for (const reason of overloadReasons) metrics.load.set({ reason }, load[reason] / thresholds[reason])
    },
    onBegan: (reason, load) => log.warn('load_shedding_began', { reason, ...load }),
    onEnded: (reason, lastedMs) => {
      log.info('load_shedding_ended', { reason, lasted_seconds: Math.round(lastedMs / 1000) })
    },
    clock,
    random,
  })
  metrics.watch('sheddingIntensity', () => loadShedding.intensity)
  await life.start(loadShedding)
  return loadShedding
}

/** How much of the limits of the queue is used up; 1 when it may have no room for the next request. */
function fullness({ rows, bytes }: Backlog, config: Config): number {
  const { STAGING_MAX_BACKLOG, STAGING_MAX_BYTES, MAX_BODY_BYTES } = config
  return Math.max(rows / STAGING_MAX_BACKLOG, (bytes + MAX_BODY_BYTES) / STAGING_MAX_BYTES)
}
