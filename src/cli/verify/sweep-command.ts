import pLimit from 'p-limit'
import type { Clock } from '../../foundation/clock.ts'
import { Failure } from '../../foundation/failure.ts'
import type { Sql } from '../../postgres/pool.ts'
import { lockSweeping, sweepQueue } from '../../queue/abandoned.ts'
import { Sweeper } from '../../relay/sweeper.ts'
import type { ObjectStore } from '../../sink/object-store.ts'
import type { Log } from '../../telemetry/log.ts'
import { createMetrics } from '../../telemetry/metrics.ts'
import { type ExitCode, exitCodes } from '../exit-codes.ts'
import type { Progress } from '../progress.ts'
import { readableBytes, readableCount } from '../table.ts'
import { type ListedObject, listedObjects, withStanding } from './listed-objects.ts'

export const sweepHelp = `
Does now what every worker does from time to time: deletes what batches left in the store that were split, given back or
buried, once two put deadlines (LEASE_SECONDS) have passed. One process at a time sweeps a database.

--unknown is another matter: it finds the objects that are named like ours below S3_PREFIX and that this database does
not know, and with --yes deletes them. Without --yes it prints their keys and deletes nothing. It leaves alone what is
younger than two leases, and looks each one up again right before it deletes it.

An unknown object may be the only copy of its data: after the database was restored from a backup, everything that was
stored since is unknown. And where two databases share a bucket and a prefix, what is the other's is unknown here. Look
before you delete: sluice cat KEY prints what is in one.

Examples:
  sluice sweep
  sluice sweep --unknown
  sluice sweep --unknown --yes`

export interface SweepOptions {
  unknown: boolean
  yes: boolean
  json: boolean
}

/** What the command works with. `sql` is a pool of one connection: its session holds the lock. */
export interface Sweeping {
  sql: Sql
  store: ObjectStore
  keyPrefix: string
  leaseSeconds: number
  clock: Clock
  log: Log
  progress: Progress
  print: (text: string) => Promise<unknown>
}

const LOCK_WAIT_MS = 3_000
const REMOVALS_AT_ONCE = 8
const LOCK_RETRY_MS = 200

export async function sweepCommand(sweeping: Sweeping, options: SweepOptions): Promise<ExitCode> {
  if (options.yes && !options.unknown) throw new Failure('client', '--yes belongs to --unknown.')
  if (options.unknown) return await sweepUnknown(sweeping, options)
  await waitForLock(sweeping)
  const sweeper = new Sweeper({
    ...sweeping,
    queue: sweepQueue(sweeping.sql),
    random: () => 0,
    metrics: createMetrics(),
  })
  const { deletedKeys, refused, failed } = await sweeper.sweep(new AbortController().signal)
  if (options.json) {
    await sweeping.print(`${JSON.stringify({ deleted: deletedKeys, refused, failed })}\n`)
  } else {
    for (const key of deletedKeys) await sweeping.print(`${key}\n`)
    const rest = refused + failed > 0 ? ` Batches to be looked at again: ${refused + failed}.` : ''
    await sweeping.print(`Deleted ${counted(deletedKeys.length)} of batches that were given up.${rest}\n`)
  }
  return failed > 0 ? exitCodes.failed : exitCodes.ok
}

async function sweepUnknown(sweeping: Sweeping, { yes, json }: SweepOptions): Promise<ExitCode> {
  const { print, progress, store } = sweeping
  if (yes) await refuseForeignStore(sweeping)
  const done = { objects: 0, bytes: 0, young: 0 }
  let before = '{"keys":['
  const limit = pLimit(REMOVALS_AT_ONCE)
  for await (const page of unknownObjects(sweeping)) {
    const old = page.filter((object) => !isYoung(sweeping, object))
    done.young += page.length - old.length
    const removed = await Promise.all(
      old.map((object) => limit(async () => !yes || (await removeUnknown(sweeping, object)))),
    )
    for (const { key, bytes } of old.filter((_, index) => removed[index])) {
      done.objects++
      done.bytes += bytes
      await print(json ? before + JSON.stringify(key) : `${key}\n`)
      before = ',\n'
    }
  }
  progress.end()
  if (json) {
    await print(`${before.startsWith('{') ? before : ''}],"deleted":${yes},"young":${done.young}}\n`)
    return exitCodes.ok
  }
  const what = `${counted(done.objects)} (${readableBytes(done.bytes)}) that this database does not know`
  await print(yes ? `Deleted ${what}.\n` : `Would delete ${what} from ${store.bucket}. --yes does it.\n`)
  if (done.young > 0) await print(`${counted(done.young)} more: unknown, and too young to be deleted.\n`)
  return exitCodes.ok
}

async function* unknownObjects({
  sql,
  store,
  keyPrefix,
  progress,
}: Sweeping): AsyncGenerator<ListedObject[]> {
  let listed = 0
  for await (const page of listedObjects(sql, store, { keyPrefix })) {
    listed += page.length
    progress.say(`${readableCount(listed)} objects listed and looked up in the catalog`)
    yield page.filter(({ standing }) => standing === 'unknown')
  }
}

/** A database that knows nothing of a full bucket is the wrong one. */
async function refuseForeignStore({ sql, store, keyPrefix }: Sweeping): Promise<void> {
  let unknown = 0
  for await (const page of listedObjects(sql, store, { keyPrefix })) {
    if (page.some(({ standing }) => standing === 'catalogued' || standing === 'in flight')) return
    unknown += page.filter(({ standing }) => standing === 'unknown').length
  }
  if (unknown === 0) return
  throw new Failure(
    'client',
    `This database knows none of the ${counted(unknown)} in ${store.bucket}: they belong to another one, or it is a ` +
      'backup from before all of them. Nothing is deleted.',
  )
}

/** Two leases are four put deadlines. */
function isYoung({ clock, leaseSeconds }: Sweeping, { modifiedAt }: { modifiedAt: Date }): boolean {
  return clock.wallMs() - modifiedAt.getTime() < 2000 * leaseSeconds
}

/** Whether it was still there, old and unknown, and is gone. */
async function removeUnknown(sweeping: Sweeping, { key }: ListedObject): Promise<boolean> {
  const { sql, store, keyPrefix, clock, leaseSeconds } = sweeping
  const info = await store.stat(key)
  if (info === undefined || isYoung(sweeping, info)) return false
  await waitForLock(sweeping)
  const askedMs = clock.monotonicMs()
  const [object] = await withStanding(sql, [info], keyPrefix)
  // An answer that lay unread while this process was frozen says nothing.
  if (object?.standing !== 'unknown' || clock.monotonicMs() - askedMs > leaseSeconds * 500) return false
  await store.remove(key)
  return true
}

/** The session keeps the lock until the command ends, and gets it back here if it was lost with its connection. */
async function waitForLock({ sql, clock }: Sweeping): Promise<void> {
  const untilMs = clock.monotonicMs() + LOCK_WAIT_MS
  while (!(await lockSweeping(sql))) {
    if (clock.monotonicMs() > untilMs) {
      throw new Failure('outage', 'Another process sweeps this database at the moment. Try again later.')
    }
    await clock.sleep(LOCK_RETRY_MS)
  }
}

function counted(objects: number): string {
  return objects === 1 ? '1 object' : `${readableCount(objects)} objects`
}
