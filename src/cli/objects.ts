import type { Sql } from '../postgres/pool.ts'
import { listObjects, type ObjectFilter } from '../sink/catalog.ts'
import { readableBytes, table } from './table.ts'

export const objectsHelp = `
Examples:
  sluice objects
  sluice objects --signal traces --since 2026-01-31T00:00:00Z --limit 1000
  sluice objects --json | jq -r '.[].key'`

/** The objects in the catalog, the newest first, as a table or as JSON. */
export async function objectsCommand(sql: Sql, options: ObjectFilter & { json: boolean }): Promise<string> {
  const objects = await listObjects(sql, options)
  if (options.json) return `${JSON.stringify(objects)}\n`
  if (objects.length === 0) return 'Nothing is stored that fits.\n'
  return table(
    objects.map(({ storedAt, requests, items, bytes, services, key }) => ({
      stored: `${storedAt.toISOString().slice(0, 19)}Z`,
      requests,
      items,
      bytes: readableBytes(bytes),
      services: services.length > 3 ? `${services.slice(0, 3).join(',')},…` : services.join(','),
      key,
    })),
  )
}
