import type { Ledger } from './ledger.ts'
import type { Stage } from './machine.ts'
import { readBack, type StoreContents } from './read-back.ts'

const examplesMax = 5

/** The ledger held against the store. Each list has the markers that are wrong, and why they are. */
export interface Account {
  readonly store: StoreContents
  /** Requests whose 200 is true: stored exactly once, with the bytes that were sent. */
  readonly kept: number
  readonly missing: string[]
  readonly twice: string[]
  readonly unequal: string[]
  /** Answered with something that means "not taken", and stored all the same. */
  readonly storedThoughRefused: string[]
  /** Requests in the store that nobody sent, or without a marker. */
  readonly strangers: string[]
  /** Got no answer or a 503, and are in the store once. */
  readonly storedUnknown: number
  /** Everything that is in the store. */
  readonly storedMarkers: ReadonlySet<string>
}

/** Reads the whole store and compares it with everything that was sent. */
export async function account(
  stage: Stage,
  ledger: Ledger,
  options: Parameters<typeof readBack>[2] = {},
): Promise<Account> {
  const times = new Map<string, number>()
  const unequal: string[] = []
  const strangers: string[] = []
  const store = await readBack(
    stage,
    ({ marker, signal, key, protobuf }) => {
      const entry = marker === undefined ? undefined : ledger.entries.get(marker)
      if (entry === undefined || marker === undefined) {
        strangers.push(`${marker ?? 'no marker'} in ${key}`)
        return
      }
      times.set(marker, (times.get(marker) ?? 0) + 1)
      if (entry.signal !== signal || !entry.equals(protobuf)) unequal.push(`${marker} in ${key}`)
    },
    options,
  )
  const missing: string[] = []
  const storedThoughRefused: string[] = []
  let [kept, storedUnknown] = [0, 0]
  for (const [marker, { promised }] of ledger.entries) {
    const stored = times.get(marker) ?? 0
    if (promised === 'stored') {
      if (stored === 0) missing.push(marker)
      if (stored === 1) kept++
    } else if (stored > 0) {
      if (promised === 'nothing') storedThoughRefused.push(marker)
      else storedUnknown++
    }
  }
  const twice = [...times].filter(([, count]) => count > 1).map(([marker, count]) => `${marker} × ${count}`)
  return {
    store,
    kept,
    missing,
    twice,
    unequal,
    storedThoughRefused,
    strangers,
    storedUnknown,
    storedMarkers: new Set(times.keys()),
  }
}

/** Whether every answer was true and bucket and catalog say the same. */
export function isExact({ store, ...account }: Account): boolean {
  const wrong = [
    ...account.missing,
    ...account.twice,
    ...account.unequal,
    ...account.storedThoughRefused,
    ...account.strangers,
    ...store.keysWithoutRow,
    ...store.rowsWithoutKey,
    ...store.untrueRows,
  ]
  return wrong.length === 0 && store.deadLetters === 0 && store.queueRows === 0 && store.batches === 0
}

/** The account in one line: the good part in numbers, and everything that is wrong with examples. */
export function describeAccount(account: Account): string {
  const { store, kept, storedUnknown } = account
  const wrong = Object.entries({
    missing: account.missing,
    twice: account.twice,
    unequal: account.unequal,
    'stored though refused': account.storedThoughRefused,
    strangers: account.strangers,
    'objects without a row': store.keysWithoutRow,
    'rows without an object': store.rowsWithoutKey,
    'untrue rows': store.untrueRows,
  })
    .filter(([, list]) => list.length > 0)
    .map(([name, list]) => `${list.length} ${name} (${list.slice(0, examplesMax).join('; ')})`)
  const left = [
    ...(store.deadLetters > 0 ? [`${store.deadLetters} dead letters`] : []),
    ...(store.queueRows > 0 ? [`${store.queueRows} rows still queued`] : []),
    ...(store.batches > 0 ? [`${store.batches} batches still there`] : []),
  ]
  return [
    `${kept} of them once and equal, in ${store.objects} objects`,
    ...(storedUnknown > 0 ? [`${storedUnknown} unanswered ones once`] : []),
    ...left,
    ...wrong,
  ].join(', ')
}

/** The wanted counterpart of `describeAccount`. */
export function expectedAccount(ledger: Ledger): string {
  return `each of ${ledger.count('stored')} 200s once and equal, nothing else, objects = catalog, queue empty`
}
