import type { Sql } from '../../postgres/pool.ts'
import { findInFlight } from '../../queue/find-in-flight.ts'
import { findCatalogued } from '../../sink/catalog-pages.ts'
import { parseObjectKey } from '../../sink/object-key.ts'
import type { ObjectStore, StoredObjectInfo } from '../../sink/object-store.ts'

/**
 * What an object in the store is to this database.
 *
 * - `catalogued`: the catalog names it.
 * - `in flight`: it belongs to a batch that waits or is being written, or the sweeper is to look after it.
 * - `unknown`: its name is one of ours, and nothing here knows it.
 * - `not ours`: its name is none that we give.
 */
export type Standing = 'catalogued' | 'in flight' | 'unknown' | 'not ours'

export interface ListedObject extends StoredObjectInfo {
  standing: Standing
}

const PAGE_KEYS = 1_000

/** Every object below the prefix, page by page, with its standing at a moment after it was listed. */
export async function* listedObjects(
  sql: Sql,
  store: ObjectStore,
  { keyPrefix, since }: { keyPrefix: string; since?: Date | undefined },
): AsyncGenerator<ListedObject[]> {
  let page: StoredObjectInfo[] = []
  for await (const object of store.list(keyPrefix)) {
    if (since !== undefined && object.modifiedAt < since) continue
    page.push(object)
    if (page.length < PAGE_KEYS) continue
    yield await withStanding(sql, page, keyPrefix)
    page = []
  }
  if (page.length > 0) yield await withStanding(sql, page, keyPrefix)
}

/**
 * What these objects are to the database. The batches are asked for before the catalog: one that is settled between the
 * questions is found by both, in the other order by neither.
 */
export async function withStanding(
  sql: Sql,
  objects: readonly StoredObjectInfo[],
  keyPrefix: string,
): Promise<ListedObject[]> {
  const named = objects.map((object) => ({ object, batchId: parseObjectKey(object.key, keyPrefix)?.batchId }))
  const batchIds = named.map(({ batchId }) => batchId).filter((batchId) => batchId !== undefined)
  const inFlight = await findInFlight(sql, [...new Set(batchIds)])
  const keys = objects.map(({ key }) => key)
  const catalogued = await findCatalogued(sql, keys)
  return named.map(({ object, batchId }) => {
    if (catalogued.has(object.key)) return { ...object, standing: 'catalogued' }
    if (batchId === undefined) return { ...object, standing: 'not ours' }
    return { ...object, standing: inFlight.has(batchId) ? 'in flight' : 'unknown' }
  })
}
