import { z } from 'zod'
import type { Clock } from '../../foundation/clock.ts'
import { Failure } from '../../foundation/failure.ts'
import { ApiFile, type ApiHandler } from '../../ingress/admin.ts'
import { type Signal, signals } from '../../otlp/signal.ts'
import type { Sql } from '../../postgres/pool.ts'
import type { Backlog } from '../../queue/count-backlog.ts'
import {
  countDeadLetters,
  type DeadLetterFilter,
  deadLetterReasons,
  discardDeadLetters,
  listDeadLetters,
} from '../../queue/dead-letters.ts'
import { replayInPieces } from '../../queue/replay-in-pieces.ts'
import type { Log } from '../../telemetry/log.ts'
import { fileName, ID_MAX, letterJson } from './letter.ts'
import { findDeadLetter, letterWithRequest } from './show.ts'

/** Whoever asks for more than this takes asks again: a request must not wait for a queue. */
const CHANGE_MS_MAX = 5_000
const DISCARD_ROWS_MAX = 1_000
/** Decoding holds the event loop of a process that takes requests: 13 ms for this much of spans, 60 ms at the worst. */
const DECODED_BYTES_MAX = 128 * 1024

export interface DeadLetterApiOptions {
  sql: Sql
  backlogMax: Backlog
  log: Log
  clock: Clock
}

const idRule = `must be a whole number from 1 to ${ID_MAX}`
const id = z
  .union([z.int(idRule).min(1, idRule), z.string().regex(/^[1-9]\d{0,18}$/, idRule)], idRule)
  .transform((value) => BigInt(value))
  .refine((value) => value <= ID_MAX, idRule)
const time = z
  .string()
  .transform((text) => new Date(text))
  .refine((value) => !Number.isNaN(value.getTime()), 'must be a time like 2026-01-31T12:00:00Z')
const filterShape = {
  reason: z.enum(deadLetterReasons).optional(),
  tenant: z.string().optional(),
  signal: z.enum(Object.keys(signals) as [Signal, ...Signal[]]).optional(),
  since: time.optional(),
  until: time.optional(),
}
const count = z
  .string()
  .regex(/^[1-9]\d{0,3}$/, 'must be a whole number from 1 to 9999')
  .transform(Number)
const listQuery = z.strictObject({ ...filterShape, limit: count.default(100), before: id.default(ID_MAX) })
const changeShape = {
  ...filterShape,
  ids: z.array(id).optional(),
  after: id.default(0n),
  dryRun: z.boolean().default(false),
}
const replayBody = z.strictObject(changeShape)
const discardBody = z.strictObject({ ...changeShape, all: z.boolean().default(false) })

/** The handlers of `/api/v1/dead-letters`, by path. */
export function deadLetterApi(options: DeadLetterApiOptions): {
  gets: Record<string, ApiHandler>
  posts: Record<string, ApiHandler>
} {
  const { sql } = options
  return {
    gets: {
      '/dead-letters': answering(async ({ query }) => {
        const { limit, before, ...filter } = parsed(listQuery, query)
        const letters = await listDeadLetters(sql, present(filter), { before, limit })
        const { rows } = await countDeadLetters(sql, present(filter))
        const next = letters.length < limit ? null : String(letters.at(-1)?.id)
        return { status: 200, body: { deadLetters: letters.map(letterJson), total: rows, next } }
      }),
      '/dead-letters/:id': answering(async ({ params }) => {
        const letter = await findDeadLetter(sql, parsed(id, params.id))
        if (letter === undefined) return noSuchLetter(params.id)
        if (letter.unpackedBytes <= DECODED_BYTES_MAX) {
          return { status: 200, body: await letterWithRequest(letter) }
        }
        const { payload: _, ...rest } = letter
        const requestError = `over ${DECODED_BYTES_MAX} bytes: /api/v1/dead-letters/${letter.id}/payload has them`
        return { status: 200, body: { ...letterJson(rest), requestError } }
      }),
      '/dead-letters/:id/payload': answering(async ({ params }) => {
        const letter = await findDeadLetter(sql, parsed(id, params.id))
        if (letter === undefined) return noSuchLetter(params.id)
        const type = letter.encoding === 'gzip' ? 'application/gzip' : 'application/x-protobuf'
        return { status: 200, body: new ApiFile(fileName(letter), type, letter.payload) }
      }),
    },
    posts: {
      '/dead-letters/replay': answering(({ body }) => replay(options, parsed(replayBody, body))),
      '/dead-letters/discard': answering(({ body }) => discard(options, parsed(discardBody, body))),
    },
  }
}

async function replay(
  { sql, backlogMax, log, clock }: DeadLetterApiOptions,
  { after, dryRun, ...rest }: z.infer<typeof replayBody>,
): ReturnType<ApiHandler> {
  const filter = present(rest)
  const found = await countDeadLetters(sql, filter, after)
  if (dryRun) return wouldChange(found)
  const late = clock.deadline(CHANGE_MS_MAX)
  const done = { found: found.rows, replayed: 0, bytes: 0 }
  let next = after
  let queueFull = false
  let cutShort = false
  for await (const step of replayInPieces(sql, filter, { after, last: found.lastId, backlogMax })) {
    done.replayed += step.rows
    done.bytes += step.bytes
    next = step.lastId ?? next
    queueFull = !step.hasRoom
    cutShort = queueFull || late.aborted
    if (cutShort) break
  }
  const isOver = !cutShort || next >= found.lastId
  if (done.replayed > 0) log.info('dead_letters_replayed', { rows: done.replayed, bytes: done.bytes })
  return { status: 200, body: { dryRun, ...done, next: isOver ? null : String(next), queueFull } }
}

async function discard(
  { sql, log, clock }: DeadLetterApiOptions,
  { after, dryRun, all, ...rest }: z.infer<typeof discardBody>,
): ReturnType<ApiHandler> {
  const filter = present(rest)
  if (!all && Object.keys(filter).length === 0) {
    throw new Failure('client', 'say which to delete: ids, a filter, or "all": true for every one of them')
  }
  const found = await countDeadLetters(sql, filter, after)
  if (dryRun) return wouldChange(found)
  const late = clock.deadline(CHANGE_MS_MAX)
  const done = { found: found.rows, discarded: 0, bytes: 0 }
  let next: bigint | null = after
  do {
    const piece = { after: next, last: found.lastId, rowsMax: DISCARD_ROWS_MAX }
    const moved = await discardDeadLetters(sql, filter, piece)
    done.discarded += moved.rows
    done.bytes += moved.bytes
    next = moved.lastId
  } while (next !== null && next < found.lastId && !late.aborted)
  if (done.discarded > 0) log.info('dead_letters_discarded', { rows: done.discarded, bytes: done.bytes })
  const isOver = next === null || next >= found.lastId
  return { status: 200, body: { dryRun, ...done, next: isOver ? null : String(next) } }
}

function wouldChange({ rows, items, bytes }: { rows: number; items: number; bytes: number }) {
  return { status: 200, body: { dryRun: true, found: rows, items, bytes } } as const
}

function noSuchLetter(id: string | undefined) {
  return { status: 404, body: { error: `there is no dead letter ${id}` } } as const
}

/** Faults of the asker and outages become answers; everything else is a bug. */
function answering(handler: ApiHandler): ApiHandler {
  return async (request) => {
    try {
      return await handler(request)
    } catch (thrown) {
      if (!(thrown instanceof Failure)) throw thrown
      if (thrown.kind === 'client') return { status: 400, body: { error: thrown.message } }
      if (thrown.kind === 'outage') return { status: 503, body: { error: thrown.message } }
      throw thrown
    }
  }
}

/** @throws Failure `client` that names each member that breaks its rule. */
function parsed<T>(schema: z.ZodType<T>, given: unknown): T {
  const result = schema.safeParse(given)
  if (result.success) return result.data
  const faults = result.error.issues.map(({ path, message }) =>
    [path.join('.'), message].filter(Boolean).join(': '),
  )
  throw new Failure('client', faults.join('; '))
}

/** The members that were given. */
function present(
  filter: { [Name in keyof DeadLetterFilter]: DeadLetterFilter[Name] | undefined },
): DeadLetterFilter {
  return Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== undefined))
}
