import type { Sql } from '../../../src/postgres/pool.ts'
import { findAbandoned, forgetAbandoned, markSwept } from '../../../src/queue/abandoned.ts'
import { Disagreement } from './disagreement.ts'
import {
  batchName,
  type Ledger,
  type Session,
  sessionClaim,
  sessionEnd,
  sessionTakeOver,
  sessionTimePasses,
} from './sessions.ts'
import { readTables, type SeenRecords } from './tables.ts'

/** Every request is in exactly one place, and all tables agree with each other and with what was answered. */
export async function expectOnce(sql: Sql, ledger: Ledger): Promise<void> {
  const seen = await readTables(sql)
  const faults = [
    ...faultsOfRequests(seen, ledger),
    ...faultsOfBatches(seen, ledger),
    ...faultsOfObjects(seen, ledger),
  ]
  if (faults.length > 0) throw new Disagreement(faults.join('\n  '))
}

/** Each batch ended at most once, and in the way that its holder was told. Before the sweeper forgets it. */
export async function expectOneEnding(sql: Sql, ledger: Ledger): Promise<void> {
  const faults = faultsOfEndings(await readTables(sql), ledger)
  if (faults.length > 0) throw new Disagreement(faults.join('\n  '))
}

function faultsOfRequests({ requests, objects }: SeenRecords, ledger: Ledger): string[] {
  const places = new Map<string, string[]>()
  const note = (name: string, place: string) => places.set(name, [...(places.get(name) ?? []), place])
  for (const { name, state, place } of requests)
    note(name, place.batch === null ? state : `${state} in ${batchName(ledger, String(place.batch))}`)
  for (const { key, ids } of objects) for (const id of ids) note(nameOf(id, ledger), `stored in ${key}`)
  const names = new Set([...places.keys(), ...ledger.answered])
  return [...names].flatMap((name) => {
    const found = places.get(name) ?? []
    if (found.length === 1 && (ledger.answered.has(name) || ledger.unknown.has(name))) return []
    return [`${name} is in ${found.length} places: ${found.join(' and ') || 'nowhere'}`]
  })
}

function faultsOfBatches({ requests, batches }: SeenRecords, ledger: Ledger): string[] {
  const held = new Map<unknown, { rows: number; bytes: number }>()
  for (const { content, place } of requests.filter(({ state }) => state !== 'dead')) {
    if (place.batch === null) continue
    const { rows, bytes } = held.get(place.batch) ?? { rows: 0, bytes: 0 }
    held.set(place.batch, { rows: rows + 1, bytes: bytes + Number(content.bytes) })
  }
  const ids = new Set([...held.keys(), ...batches.map(({ batch }) => batch)])
  return [...ids].flatMap((id) => {
    const said = batches.find(({ batch }) => batch === id)?.values
    const found = held.get(id)
    if (said?.rows === found?.rows && said?.bytes === found?.bytes) return []
    const name = batchName(ledger, String(id))
    return [
      `${name} says ${said?.rows} rows of ${said?.bytes} bytes and has ${found?.rows} of ${found?.bytes}`,
    ]
  })
}

function faultsOfEndings({ batches, objects, abandoned }: SeenRecords, ledger: Ledger): string[] {
  const live = new Set<string>(batches.map(({ batch }) => batch))
  const stored = new Set<string>(objects.map(({ batch }) => batch))
  const leftOver = new Set<string>(abandoned.map(({ batch }) => batch))
  const all = new Set<string>([...live, ...stored, ...leftOver, ...ledger.endings.keys()])
  return [...all].flatMap((batch) => {
    const heard = (ledger.endings as ReadonlyMap<string, string[]>).get(batch) ?? []
    const found = [
      live.has(batch) && 'live',
      stored.has(batch) && 'stored',
      leftOver.has(batch) && 'left over',
    ]
    const places = found.filter((place) => place !== false)
    const wanted = heard.map((how) => (how === 'complete' ? 'stored' : 'left over'))
    const agrees = heard.length === 0 || (heard.length === 1 && wanted[0] === places[0])
    if (places.length === 1 && agrees) return []
    return [
      `${batchName(ledger, batch)} is ${places.join(' and ') || 'nowhere'}; told: ${heard.join(', ') || 'nothing'}`,
    ]
  })
}

/** The bytes of each object are its requests, one after the other. */
function faultsOfObjects({ objects }: SeenRecords, ledger: Ledger): string[] {
  return objects.flatMap(({ key, ids, offsets }) => {
    const body = ledger.store.get(key)
    if (body === undefined) return [`${key} is in the catalog and not in the store`]
    const parts = offsets.map((offset, index) => body.subarray(offset, offsets[index + 1]).toString())
    const names = ids.map((id) => nameOf(id, ledger))
    return parts.join('\n') === names.join('\n')
      ? []
      : [`${key} holds ${parts} where the catalog has ${names}`]
  })
}

function nameOf(id: string, ledger: Ledger): string {
  return ledger.names.get(id) ?? `row ${id}`
}

/** One worker stores whatever waits; the sweeper looks twice. */
export async function drainAlone(session: Session, ledger: Ledger): Promise<void> {
  await sessionTimePasses()(session, ledger)
  const takes = [sessionTakeOver(1_000), sessionClaim(1_000)]
  for (const take of takes) {
    for (session.hands = []; ; session.hands = []) {
      await take(session, ledger)
      if (session.hands.length === 0) break
      await sessionEnd({ how: 'complete' }, 0)(session, ledger)
    }
  }
  for (let look = 0; look < 2; look++) {
    for (const { batchId, secondLook, keys } of await findAbandoned(session.sql, 0, 10_000)) {
      for (const key of keys) ledger.store.delete(key)
      await (secondLook ? forgetAbandoned : markSwept)(session.sql, batchId)
    }
  }
  const { requests, batches, objects, abandoned } = await readTables(session.sql)
  const left = requests
    .filter(({ state }) => state !== 'dead')
    .map(({ name, state }) => `${name} is ${state}`)
  const stored = new Set(objects.map(({ key }) => key))
  const unknown = [...ledger.store.keys()].filter((key) => !stored.has(key))
  const faults = [
    ...left,
    ...batches.map(({ batch }) => `${batchName(ledger, batch)} is left`),
    ...abandoned.map(({ batch }) => `what ${batchName(ledger, batch)} left over was not looked at`),
    ...unknown.map((key) => `${key} is in the store and not in the catalog`),
  ]
  if (faults.length > 0) throw new Disagreement(`after the drain: ${faults.join('\n  ')}`)
}
