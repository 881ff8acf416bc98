import cluster from 'node:cluster'
import type { Registry } from 'prom-client'
import { aborted } from '../../foundation/abort.ts'
import { backoffMs } from '../../foundation/backoff.ts'
import type { Clock } from '../../foundation/clock.ts'
import { Failure } from '../../foundation/failure.ts'
import type { Service } from '../../foundation/service.ts'
import type { Check } from '../../ingress/admin.ts'
import type { Log } from '../../telemetry/log.ts'
import { type Counts, mergeMetrics, sumTotals } from '../../telemetry/merge-metrics.ts'
import type { Metrics } from '../../telemetry/metrics.ts'
import { type ExitCode, exitCodes } from '../exit-codes.ts'
import type { Doors } from '../start-ingress.ts'
import type { Ports } from './messages.ts'
import { OneProcess, type ProcessEnd } from './one-process.ts'

export interface SupervisorOptions {
  /** How many processes take OTLP. */
  processes: number
  /** With its password. */
  databaseUrl: string
  ports: Ports
  /** Aborts when the whole is to stop, also while it starts. */
  stopping: AbortSignal
  metrics: Metrics
  log: Log
  clock: Clock
  random: () => number
}

/** Before a process that ended is begun again. */
const RESTART_MS = { baseMs: 200, maxMs: 10_000 }
/** One that ran for so long is begun again as if it had never ended. */
const STEADY_MS = 60_000
/** A process that has not said by then what it counted is shown as it was heard last. */
const COUNT_MS_MAX = 1_000
/** A process that has not ended so long after the grace is killed. */
const PATIENCE_MS = 3_000

/**
 * The processes that take OTLP on the same ports. Each connection goes to the next one of them and stays there.
 *
 * **Maintained invariant**: as many as were asked for run, or are about to be begun again, until the stop.
 */
export class Supervisor implements Service {
  readonly name = 'processes'
  readonly #options: SupervisorOptions
  readonly #stopping = new AbortController()
  readonly #processes = new Map<number, OneProcess>()
  #kept: Promise<void>[] = []
  #doors: Doors | undefined
  #ports: Ports

  constructor(options: SupervisorOptions) {
    this.#options = options
    this.#ports = options.ports
  }

  /** Where they take OTLP; undefined when the stop came before they did. */
  get doors(): Doors | undefined {
    return this.#doors
  }

  /** Whether at least one takes OTLP. */
  get check(): Check {
    const { processes } = this.#options
    const serving = [...this.#processes.values()].filter(({ isServing }) => isServing).length
    if (serving === processes) return { ok: true }
    return { ok: serving > 0, message: `${serving} of ${processes} processes take OTLP at this moment` }
  }

  /**
   * Resolves when all of them take OTLP, or when the stop comes first.
   *
   * @throws Failure of the kind that the exit code of the first process stands for which ended instead; its log says why.
   */
  async start(): Promise<void> {
    const { processes, stopping } = this.#options
    // Long-lived connections have to be spread evenly, which the operating system does not do.
    cluster.schedulingPolicy = cluster.SCHED_RR
    cluster.setupPrimary({ serialization: 'advanced' })
    const all = Array.from({ length: processes }, (_, index) => this.#begin(index + 1, []))
    const serving = Promise.all(all.map((one) => Promise.race([one.serving, failedStart(one)])))
    // What comes after the stop began is no news.
    serving.catch(() => undefined)
    const doors = await Promise.race([serving, aborted(stopping)])
    this.#doors = doors?.[0]
    if (doors) this.#kept = all.map((one) => this.#keep(one))
  }

  /** Lets all of them drain; those that take longer than the grace are killed some seconds after it. */
  async stop(giveUp: AbortSignal): Promise<void> {
    const { clock } = this.#options
    this.#stopping.abort()
    const all = [...this.#processes.values()]
    const served = all.filter(({ isServing }) => isServing)
    for (const one of all) one.order({ kind: 'stop' })
    const over = new AbortController()
    void aborted(giveUp).then(async () => {
      await clock.sleep(PATIENCE_MS, over.signal)
      for (const one of over.signal.aborted ? [] : all) one.kill()
    })
    const ends = await Promise.all(served.map(async (one) => ({ one, end: await one.ended })))
    await Promise.all(all.map(({ ended }) => ended))
    await Promise.all(this.#kept)
    over.abort()
    const failed = ends.filter(({ end }) => end.code !== exitCodes.ok)
    if (failed.length === 0) return
    const sentences = failed.map(({ one, end }) => `process ${one.number} ended ${described(end)}`)
    throw new Failure('outage', `${sentences.join(', ')} before it was done`)
  }

  /** Has every process read its files again. */
  reload(): void {
    for (const one of this.#processes.values()) one.order({ kind: 'reload' })
  }

  /** What all of them, those that have ended and this process have counted. */
  async counts(): Promise<Registry> {
    const { clock, metrics } = this.#options
    const all = [...this.#processes.values()]
    const answered = new AbortController()
    await Promise.race([
      Promise.all(all.map((one) => one.count())),
      clock.sleep(COUNT_MS_MAX, answered.signal),
    ])
    answered.abort()
    const own = await metrics.registry.getMetricsAsJSON()
    return mergeMetrics([own, ...all.flatMap(({ counts }) => counts)])
  }

  #begin(number: number, past: Counts): OneProcess {
    const { log, databaseUrl } = this.#options
    // Processes share what they ask for in the same words. Only when none has it any more is the port that 0 was free for others.
    if (this.#doors && [...this.#processes.values()].every(({ hasEnded }) => hasEnded)) {
      this.#ports = { HTTP_PORT: this.#doors.http.port, GRPC_PORT: this.#doors.grpc.port }
    }
    const one = new OneProcess(number, { databaseUrl, ports: this.#ports }, past)
    this.#processes.set(number, one)
    void one.serving.then(() => log.info('process_started', { process: number, pid: one.pid }))
    return one
  }

  async #keep(first: OneProcess): Promise<void> {
    const { log, clock, random } = this.#options
    const { signal: stopping } = this.#stopping
    const { number } = first
    for (let failures = 0, one = first; ; ) {
      const beganMs = clock.monotonicMs()
      const { code, signal, error } = await one.ended
      if (stopping.aborted) return
      failures = clock.monotonicMs() - beganMs < STEADY_MS ? failures + 1 : 1
      const waitMs = backoffMs(failures - 1, { ...RESTART_MS, random })
      log[code === exitCodes.ok ? 'warn' : 'error']('process_ended', {
        process: number,
        pid: one.pid,
        ...(code != null && { exit_code: code }),
        ...(signal != null && { signal }),
        ...(error && { error }),
        begins_again_in_ms: waitMs,
      })
      await clock.sleep(waitMs, stopping)
      const past = await sumTotals(one.counts)
      if (stopping.aborted) return
      one = this.#begin(number, past)
    }
  }
}

async function failedStart({ number, ended }: OneProcess): Promise<never> {
  const { error, ...end } = await ended
  const isRefused = end.code === (exitCodes.usage satisfies ExitCode)
  const message = `process ${number} could not start: it ended ${described({ error, ...end })}`
  throw new Failure(isRefused ? 'configuration' : 'outage', message, { cause: error })
}

function described({ code, signal, error }: ProcessEnd): string {
  if (error !== undefined) return error.message
  return signal ? `by ${signal}` : `with exit code ${code}`
}
