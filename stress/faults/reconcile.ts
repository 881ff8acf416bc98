import { gunzipSync } from 'node:zlib'
import { account } from '../account.ts'
import { findMarker } from '../generator.ts'
import type { Ledger } from '../ledger.ts'
import type { Stage } from '../machine.ts'

/** The ledger held against queue, dead letters, catalog and bucket: every request is in exactly one of the columns. */
export interface Reconciliation {
  /** Answered 200. */
  readonly answered: number
  /** Of these, in the store once, with the bytes that were sent. */
  readonly stored: number
  readonly waiting: number
  readonly dead: number
  /** Got no 200, and are stored, waiting or dead, or are nowhere. */
  readonly unansweredKept: number
  readonly unansweredNowhere: number
  readonly objects: number
  /** Answered 200 and nowhere. */
  readonly lost: string[]
  /** In more than one place, or twice in one. */
  readonly twice: string[]
  /** Everything else that is not as it must be, in sentences. */
  readonly untrue: string[]
}

interface LeftRow {
  encoding: number
  payload: Buffer
}

/** Reads everything there is. To be called when nothing moves any more. */
export async function reconcile(stage: Stage, ledger: Ledger): Promise<Reconciliation> {
  const { sql } = stage
  const stored = await account(stage, ledger)
  const waiting = markersOf(await sql<LeftRow[]>`SELECT encoding, payload FROM ingestion_queue`)
  const dead = markersOf(await sql<LeftRow[]>`SELECT encoding, payload FROM dead_letter`)
  const left = new Map<string, number>()
  for (const marker of [...waiting, ...dead]) left.set(marker, (left.get(marker) ?? 0) + 1)

  const missing = new Set(stored.missing)
  const twice = [...stored.twice]
  const strangers: string[] = []
  const keptThoughRefused: string[] = []
  let unansweredLeft = 0
  for (const [marker, count] of left) {
    const entry = ledger.entries.get(marker)
    const isStored = entry?.promised === 'stored' ? !missing.has(marker) : stored.storedMarkers.has(marker)
    if (count > 1 || isStored) twice.push(`${marker} × ${count + (isStored ? 1 : 0)}`)
    if (entry === undefined) strangers.push(marker)
    else if (entry.promised === 'nothing') keptThoughRefused.push(marker)
    else if (entry.promised === 'unknown') unansweredLeft++
  }
  const ofAnswered = (markers: readonly string[]) =>
    markers.filter((marker) => ledger.entries.get(marker)?.promised === 'stored').length
  const unansweredKept = stored.storedUnknown + unansweredLeft
  return {
    answered: ledger.count('stored'),
    stored: stored.kept,
    waiting: ofAnswered(waiting),
    dead: ofAnswered(dead),
    unansweredKept,
    unansweredNowhere: ledger.entries.size - ledger.count('stored') - unansweredKept,
    objects: stored.store.objects,
    lost: stored.missing.filter((marker) => !left.has(marker)),
    twice,
    untrue: [
      ...named('with other bytes than were sent', stored.unequal),
      ...named('kept though refused', [...stored.storedThoughRefused, ...keptThoughRefused]),
      ...named('sent by nobody', [...stored.strangers, ...strangers]),
      ...named('objects without a row', stored.store.keysWithoutRow),
      ...named('rows without an object', stored.store.rowsWithoutKey),
      ...named('untrue rows', stored.store.untrueRows),
    ],
  }
}

function markersOf(rows: readonly LeftRow[]): string[] {
  return rows.map(({ encoding, payload }) => {
    const marker = findMarker(encoding === 1 ? gunzipSync(payload) : payload)
    if (marker === undefined) throw new Error('a row of the queue holds a request that nobody sent')
    return marker
  })
}

const examplesMax = 3

function named(what: string, list: readonly string[]): string[] {
  if (list.length === 0) return []
  return [`${list.length} ${what} (${list.slice(0, examplesMax).join('; ')})`]
}
