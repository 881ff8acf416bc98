import pLimit from 'p-limit'
import type { Clock } from '../../foundation/clock.ts'
import { Failure } from '../../foundation/failure.ts'
import type { Sql } from '../../postgres/pool.ts'
import { type CataloguedObject, countObjects, pageObjects } from '../../sink/catalog-pages.ts'
import { checkObject, type Fault, type FaultKind } from '../../sink/check-object.ts'
import type { ObjectStore } from '../../sink/object-store.ts'
import { type Progress, progressBar } from '../progress.ts'
import { readableBytes, readableCount } from '../table.ts'
import { listedObjects, type Standing } from './listed-objects.ts'

/** What is compared, and how. */
export interface VerifyOptions {
  keyPrefix: string
  since: Date | undefined
  /** Takes the store's word for sizes and checksums. */
  isFast: boolean
}

/** One object that is not as it should be, or that nobody knows. */
export interface Finding {
  what: FaultKind | 'unknown'
  key: string
  bytes: number
  detail: string
}

export interface Tally {
  objects: number
  bytes: number
}

/** How many objects were found to be what. `right` and the faults are rows of the catalog, the rest is the listing. */
export type Tallies = Record<'right' | FaultKind | Exclude<Standing, 'catalogued'>, Tally>

const READS_AT_ONCE = 4
/** So many objects in a row, and it is the store that is away. */
const UNREADABLE_IN_A_ROW_MAX = 5

/** Compares the catalog with the store in both directions. Its memory is bounded however much there is. */
export class Verification {
  readonly tallies: Tallies
  readonly #sql: Sql
  readonly #store: ObjectStore
  readonly #options: VerifyOptions
  readonly #clock: Clock
  readonly #progress: Progress
  #unreadableInARow = 0

  constructor(sql: Sql, store: ObjectStore, options: VerifyOptions & { clock: Clock; progress: Progress }) {
    this.#sql = sql
    this.#store = store
    this.#options = options
    this.#clock = options.clock
    this.#progress = options.progress
    const none = () => ({ objects: 0, bytes: 0 })
    this.tallies = {
      right: none(),
      missing: none(),
      size: none(),
      checksum: none(),
      content: none(),
      unreadable: none(),
      'in flight': none(),
      unknown: none(),
      'not ours': none(),
    }
  }

  /**
   * What is wrong, and then what is unknown, as it is found.
   *
   * @throws Failure `outage` when the database or the store is away.
   */
  async *findings(): AsyncGenerator<Finding> {
    try {
      yield* this.#checkCatalog()
      yield* this.#checkListing()
    } finally {
      this.#progress.end()
    }
  }

  async *#checkCatalog(): AsyncGenerator<Finding> {
    const span = { since: this.#options.since, before: new Date(this.#clock.wallMs()) }
    const all = await countObjects(this.#sql, span)
    const done = { objects: 0, bytes: 0 }
    const limit = pLimit(READS_AT_ONCE)
    for await (const page of pageObjects(this.#sql, span)) {
      const faults = await Promise.all(
        page.map((object) =>
          limit(async () => {
            const fault = await this.#check(object)
            add(done, object.bytes)
            this.#progress.say(
              `${progressBar(done.objects, all.objects)} ${readableCount(done.objects)} of ` +
                `${readableCount(all.objects)} objects, ${readableBytes(done.bytes)}`,
            )
            return fault
          }),
        ),
      )
      for (const [index, { key, bytes }] of page.entries()) {
        const fault = faults[index]
        add(this.tallies[fault?.what ?? 'right'], bytes)
        if (fault !== undefined) yield { ...fault, key, bytes }
      }
    }
  }

  async #check(object: CataloguedObject): Promise<Fault | undefined> {
    const fault = await checkObject(this.#store, object, this.#options)
    if (fault?.what !== 'unreadable') this.#unreadableInARow = 0
    else if (++this.#unreadableInARow === UNREADABLE_IN_A_ROW_MAX) throw new Failure('outage', fault.detail)
    return fault
  }

  async *#checkListing(): AsyncGenerator<Finding> {
    let listed = 0
    const limit = pLimit(READS_AT_ONCE)
    for await (const page of listedObjects(this.#sql, this.#store, this.#options)) {
      const others = page.filter(({ standing }) => standing !== 'catalogued')
      const isThere = await Promise.all(
        others.map(({ standing, key }) =>
          // The sweeper may have taken it away since it was listed.
          limit(async () => standing !== 'unknown' || (await this.#store.stat(key)) !== undefined),
        ),
      )
      for (const { standing, key, bytes, modifiedAt } of others.filter((_, index) => isThere[index])) {
        add(this.tallies[standing as Exclude<Standing, 'catalogued'>], bytes)
        if (standing !== 'unknown') continue
        yield { what: 'unknown', key, bytes, detail: `put at ${modifiedAt.toISOString()}` }
      }
      listed += page.length
      this.#progress.say(`${readableCount(listed)} objects listed and looked up in the catalog`)
    }
  }
}

function add(tally: Tally, bytes: number): void {
  tally.objects++
  tally.bytes += bytes
}
