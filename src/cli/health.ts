import type { Clock } from '../foundation/clock.ts'
import { asFailure } from '../foundation/failure.ts'
import type { Check, Health } from '../ingress/admin.ts'
import { requireSchema } from '../postgres/migrate.ts'
import type { Sql } from '../postgres/pool.ts'
import type { Complaints } from '../relay/relay.ts'
import type { ObjectStore } from '../sink/object-store.ts'

/** An answer must come before whoever asks loses patience. */
const CHECK_MS_MAX = 1_500

export interface HealthOptions {
  sql: Sql
  store: ObjectStore
  /** Undefined while the process does its work. */
  phase: () => 'starting' | 'stopping' | undefined
  /** Whether the processes that take OTLP do so, where there are several. */
  processes: () => Check | undefined
  /** Why the workers of this process claim nothing. */
  complaints: () => Complaints | undefined
  clock: Clock
}

/** What the admin port answers about this process. */
export class HealthChecks {
  readonly #options: HealthOptions
  /** By what they ask: whoever asks while one is under way hears its answer, so that none pile up. */
  readonly #asking = new Map<string, Promise<Check>>()

  constructor(options: HealthOptions) {
    this.#options = options
  }

  /**
   * Ready means that everything listens and the database and its schema are there. Of several processes that take OTLP
   * one is enough. The store does not count: its outage is what the queue is for.
   */
  async ready(): Promise<Health> {
    const phase = this.#options.phase()
    if (phase !== undefined) return { ok: false, checks: { process: { ok: false, message: phase } } }
    const database = await this.#check('database', () => requireSchema(this.#options.sql))
    const processes = this.#options.processes()
    const checks = { database, ...(processes && { processes }) }
    return { ok: database.ok && processes?.ok !== false, checks }
  }

  /** The same with the store. */
  async health(): Promise<Health> {
    const { store, clock } = this.#options
    const [ready, reached] = await Promise.all([
      this.ready(),
      this.#check('store', () => store.stat('health', clock.deadline(CHECK_MS_MAX))),
    ])
    const complaints = this.#options.complaints()
    const { database, ...others } = ready.checks
    const checks: Record<string, Check> = { ...others, store: withComplaint(reached, complaints?.store) }
    if (database !== undefined) checks.database = withComplaint(database, complaints?.catalog)
    return { ok: Object.values(checks).every(({ ok }) => ok), checks }
  }

  async #check(what: string, ask: () => Promise<unknown>): Promise<Check> {
    const { clock } = this.#options
    const answered = new AbortController()
    const asking = this.#asking.get(what) ?? this.#ask(what, ask)
    const late = clock.sleep(CHECK_MS_MAX, answered.signal).then((): Check => {
      return { ok: false, message: `no answer within ${CHECK_MS_MAX} ms` }
    })
    try {
      return await Promise.race([asking, late])
    } finally {
      answered.abort()
    }
  }

  #ask(what: string, ask: () => Promise<unknown>): Promise<Check> {
    const asking = ask()
      .then(
        (): Check => ({ ok: true }),
        (thrown): Check => ({ ok: false, message: asFailure(thrown).sentence }),
      )
      .finally(() => this.#asking.delete(what))
    this.#asking.set(what, asking)
    return asking
  }
}

/** What the sink says at this moment, and what the workers say of it. */
function withComplaint(check: Check, complaint: string | undefined): Check {
  if (complaint === undefined) return check
  return { ok: false, message: check.message === undefined ? complaint : `${check.message}; ${complaint}` }
}
