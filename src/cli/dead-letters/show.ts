import { unpack } from '../../otlp/compression.ts'
import { jsonFromProtobuf } from '../../otlp/protobuf-to-json.ts'
import type { Sql } from '../../postgres/pool.ts'
import { type DeadLetter, readDeadLetters } from '../../queue/dead-letters.ts'
import { readableBytes } from '../table.ts'
import { letterJson } from './letter.ts'

const PREVIEW_LINES_MAX = 60

type LetterWithPayload = DeadLetter & { payload: Buffer }

/** Undefined when there is no dead letter of that id. */
export async function findDeadLetter(sql: Sql, id: bigint): Promise<LetterWithPayload | undefined> {
  const piece = { after: id - 1n, last: id, rowsMax: 1, bytesMax: 0 }
  const [letter] = await readDeadLetters(sql, { ids: [id] }, piece)
  return letter
}

/** One dead letter with the beginning of its request, or as JSON with all of it. Undefined when there is none. */
export async function showCommand(
  sql: Sql,
  id: bigint,
  { json }: { json: boolean },
): Promise<string | undefined> {
  const letter = await findDeadLetter(sql, id)
  if (letter === undefined) return undefined
  return json ? `${await letterWithRequest(letter)}\n` : await letterText(letter)
}

/** The letter as JSON text: with its `request` as OTLP JSON, or with a `requestError` when it cannot be read. */
export async function letterWithRequest({ payload, ...letter }: LetterWithPayload): Promise<string> {
  const { request, error } = await readRequest(letter, payload)
  const head = JSON.stringify(letterJson(letter)).slice(0, -1)
  return request === undefined
    ? `${head},"requestError":${JSON.stringify(error)}}`
    : `${head},"request":${request}}`
}

async function letterText({ payload, ...letter }: LetterWithPayload): Promise<string> {
  const { request, error } = await readRequest(letter, payload)
  const facts = {
    id: letter.id,
    reason: letter.reason,
    'last error': letter.lastError ?? '-',
    'first error': letter.firstError ?? '-',
    tries: letter.attempts,
    received: letter.receivedAt.toISOString(),
    died: letter.diedAt.toISOString(),
    signal: letter.signal,
    tenant: letter.tenant,
    'request id': letter.requestId,
    items: letter.items,
    bytes: `${readableBytes(letter.bytes)} as ${letter.encoding}, ${readableBytes(letter.unpackedBytes)} unpacked`,
    batch: letter.batchId,
  }
  const lines = Object.entries(facts).map(([name, value]) => `${name.padEnd(12)} ${value}`)
  const body = request === undefined ? `It cannot be read: ${error}` : preview(request)
  return `${lines.join('\n')}\n\n${body}\n`
}

/** Whatever is wrong with the bytes may be why they are here: it is an answer, not a failure. */
async function readRequest(
  { signal, encoding, unpackedBytes }: DeadLetter,
  payload: Buffer,
): Promise<{ request?: string; error?: string }> {
  try {
    const limit = Math.max(payload.length, unpackedBytes)
    const { bytes } = await unpack(encoding, payload, limit)
    return { request: jsonFromProtobuf(signal, bytes) }
  } catch (thrown) {
    return { error: thrown instanceof Error ? thrown.message : String(thrown) }
  }
}

function preview(request: string): string {
  const lines = JSON.stringify(JSON.parse(request), undefined, 2).split('\n')
  const left = lines.length - PREVIEW_LINES_MAX
  if (left <= 0) return lines.join('\n')
  return `${lines.slice(0, PREVIEW_LINES_MAX).join('\n')}\n… ${left} more lines; --json prints all of it.`
}
