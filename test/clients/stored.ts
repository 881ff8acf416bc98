import { globSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { expect } from 'vitest'
import type { Encoding, Signal } from '../../src/otlp/signal.ts'
import type { Sql } from '../../src/postgres/pool.ts'
import { decodeWithPython } from '../support/python.ts'

/** A message as the protobuf JSON of Python's `opentelemetry-proto`. */
export type Message = Readonly<Record<string, unknown>>

/** What of a message is looked at here: the parts that lead to the items of every signal. */
interface ResourceMessage extends Message {
  readonly resource?: { readonly attributes?: readonly { key: string; value?: { stringValue?: string } }[] }
}

const signalNames = { 1: 'traces', 2: 'metrics', 3: 'logs', 4: 'profiles' } as const satisfies Record<
  number,
  Signal
>
const resourcesField = { traces: 'resourceSpans', metrics: 'resourceMetrics', logs: 'resourceLogs' } as const
const scopesField = { traces: 'scopeSpans', metrics: 'scopeMetrics', logs: 'scopeLogs' } as const
const itemsField = { traces: 'spans', metrics: 'metrics', logs: 'logRecords' } as const

/** The signals that the clients send. */
export type ClientSignal = keyof typeof resourcesField
/** All of them. */
export const clientSignals = Object.keys(resourcesField) as readonly ClientSignal[]

/** Everything that a Sluice with the folder store has stored, as another implementation of OTLP reads it. */
export class Stored {
  readonly #requests: readonly { signal: Signal; message: Message }[]

  constructor(requests: readonly { signal: Signal; message: Message }[]) {
    this.#requests = requests
  }

  /** The resource messages of a service, in the order of the catalog. */
  resources(signal: ClientSignal, service: string): ResourceMessage[] {
    return this.#requests
      .filter((request) => request.signal === signal)
      .flatMap(({ message }) => listOf<ResourceMessage>(message, resourcesField[signal]))
      .filter((resource) => serviceOf(resource) === service)
  }

  /** The spans, metrics or log records of a service. */
  items(signal: ClientSignal, service: string): Message[] {
    return this.resources(signal, service)
      .flatMap((resource) => listOf<Message>(resource, scopesField[signal]))
      .flatMap((scope) => listOf<Message>(scope, itemsField[signal]))
  }
}

/**
 * Waits until the queue is empty, and reads every object of the catalog. The folder must hold exactly those: what is
 * stored twice would be an object that no row names.
 */
export async function readStored(sql: Sql, dataDir: string): Promise<Stored> {
  const waiting = async () => (await sql`SELECT count(*)::int AS rows FROM ingestion_queue`)[0]?.rows
  await expect.poll(waiting, { timeout: 20_000, interval: 50 }).toBe(0)
  const rows = await sql<{ key: string; signal: keyof typeof signalNames; encoding: number }[]>`
    SELECT key, signal, encoding FROM stored_object ORDER BY object_id`
  const folder = path.join(dataDir, 'objects')
  const files = globSync('**/*.binpb*', { cwd: folder })
  expect(files.toSorted()).toEqual(rows.map(({ key }) => key).toSorted())
  const objects = await Promise.all(
    rows.map(async ({ key, signal, encoding }) => ({
      signal: signalNames[signal],
      encoding: (encoding === 1 ? 'gzip' : 'identity') satisfies Encoding as Encoding,
      body: await readFile(path.join(folder, key)),
    })),
  )
  const messages = await decodeWithPython(objects)
  return new Stored(messages.map((message, at) => ({ signal: objects[at]?.signal ?? 'traces', message })))
}

function listOf<T>(message: Message, field: string): readonly T[] {
  return (message[field] ?? []) as readonly T[]
}

function serviceOf({ resource }: ResourceMessage): string | undefined {
  return resource?.attributes?.find(({ key }) => key === 'service.name')?.value?.stringValue
}
