/**
 * How a request ended, in words of ours, and what each protocol calls it. This is the only place that picks a
 * status: the handlers of both protocols answer with an `Outcome`.
 *
 * Which statuses a sender retries is OTLP's ("OTLP/HTTP Response", "Failures": 429, 502, 503 and 504, never 500;
 * "OTLP/gRPC Response", "Failures": RESOURCE_EXHAUSTED only with a RetryInfo).
 */
export type Outcome =
  | { readonly kind: 'accepted' }
  | { readonly kind: 'dropped'; readonly items: number; readonly policy: 'drop' | 'sample' }
  | Refused

interface Refused {
  readonly kind: RefusalKind
  readonly message: string
  /** The first second at which it is worth to come again. */
  readonly retryAfterSeconds?: number
  /** How long it took to refuse it; given when the sender shall come again in step, see `RETRY_STEP_SECONDS`. */
  readonly waitedMs?: number
}

/** An outcome that is told as an error. */
export type Refusal = Exclude<Outcome, { kind: 'accepted' } | { kind: 'dropped' }>

/** The numbers of google.rpc.Code that we use (googleapis, google/rpc/code.proto). */
export const rpcCodes = {
  ok: 0,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  permissionDenied: 7,
  resourceExhausted: 8,
  unimplemented: 12,
  unavailable: 14,
  unauthenticated: 16,
} as const

/** One of those numbers. */
export type RpcCode = (typeof rpcCodes)[keyof typeof rpcCodes]

interface Verdict {
  readonly httpStatus: number
  readonly rpcCode: RpcCode
  /** Whether the sender shall come again: it is then told when. */
  readonly retried: boolean
}

const refusals = {
  malformed: { httpStatus: 400, rpcCode: rpcCodes.invalidArgument, retried: false },
  unauthenticated: { httpStatus: 401, rpcCode: rpcCodes.unauthenticated, retried: false },
  forbidden: { httpStatus: 403, rpcCode: rpcCodes.permissionDenied, retried: false },
  unknown_path: { httpStatus: 404, rpcCode: rpcCodes.unimplemented, retried: false },
  wrong_method: { httpStatus: 405, rpcCode: rpcCodes.unimplemented, retried: false },
  wrong_content_type: { httpStatus: 415, rpcCode: rpcCodes.unimplemented, retried: false },
  unknown_encoding: { httpStatus: 400, rpcCode: rpcCodes.unimplemented, retried: false },
  too_large: { httpStatus: 413, rpcCode: rpcCodes.resourceExhausted, retried: false },
  // Not 408, which OTLP's senders take as final.
  too_slow: { httpStatus: 503, rpcCode: rpcCodes.unavailable, retried: true },
  too_late: { httpStatus: 504, rpcCode: rpcCodes.deadlineExceeded, retried: true },
  rate_limited: { httpStatus: 429, rpcCode: rpcCodes.resourceExhausted, retried: true },
  queue_full: { httpStatus: 429, rpcCode: rpcCodes.resourceExhausted, retried: true },
  staging_away: { httpStatus: 503, rpcCode: rpcCodes.unavailable, retried: true },
  no_room: { httpStatus: 503, rpcCode: rpcCodes.unavailable, retried: true },
  disk_full: { httpStatus: 503, rpcCode: rpcCodes.unavailable, retried: true },
  overloaded: { httpStatus: 503, rpcCode: rpcCodes.unavailable, retried: true },
  shutting_down: { httpStatus: 503, rpcCode: rpcCodes.unavailable, retried: true },
  // A fault of ours is 503 and not 500: senders take 500 as final and throw the data away.
  bug: { httpStatus: 503, rpcCode: rpcCodes.unavailable, retried: true },
} as const satisfies Record<string, Verdict>

/** Why a request was not taken, as the metrics name it. */
export type RefusalKind = keyof typeof refusals

/** A wait longer than what is left of an SDK's 10 s deadline makes it drop its batch at once. */
const RETRY_AFTER_SECONDS_MAX = 5
/**
 * While the database is away or the queue is full a sender tries every four seconds, counted from when its request
 * came: SDKs for JavaScript and Python repeat a request five times at most, and within 10 s unless told otherwise.
 * In steps of four seconds the third try comes after 8 s and still within 10, and the last one after 20 s; shorter
 * ones give up earlier in a long outage, longer ones in a short one. They are not drawn at random: senders come back
 * as spread out as they came.
 */
const RETRY_STEP_SECONDS = 4

/** What a client is told. `retryAfterSeconds` is whole, 1 to 5, and there exactly if the sender shall come again. */
export interface Answer {
  readonly httpStatus: number
  readonly rpcCode: RpcCode
  readonly message: string
  readonly retryAfterSeconds: number | undefined
}

/**
 * The answer for a refusal. The wait ends at the next step after the request came, if the refusal says how long that
 * was ago. Else it is drawn with `random`, a number in [0, 1), from the first second at which the refusal says that
 * it is worth it, so that those who were refused together do not come back together.
 */
export function refusalAnswer(refusal: Refusal, random: () => number): Answer {
  const { httpStatus, rpcCode, retried } = refusals[refusal.kind]
  const { message } = refusal
  if (!retried) return { httpStatus, rpcCode, message, retryAfterSeconds: undefined }
  if (refusal.waitedMs !== undefined) {
    const sinceStep = (refusal.waitedMs / 1000) % RETRY_STEP_SECONDS
    return { httpStatus, rpcCode, message, retryAfterSeconds: Math.ceil(RETRY_STEP_SECONDS - sinceStep) }
  }
  const least = Math.min(refusal.retryAfterSeconds ?? 1, RETRY_AFTER_SECONDS_MAX)
  const spread = Math.floor(random() * (RETRY_AFTER_SECONDS_MAX + 1 - least))
  return { httpStatus, rpcCode, message, retryAfterSeconds: least + spread }
}

/** What the answer to a request that came to its end says of what was not taken of it; undefined when all was. */
export function partialSuccess(
  outcome: Extract<Outcome, { kind: 'accepted' | 'dropped' }>,
): { rejected: number; message: string } | undefined {
  // A partial success that rejects nothing is read as a warning about something else.
  if (outcome.kind === 'accepted' || outcome.items === 0) return undefined
  return { rejected: outcome.items, message: droppedMessage(outcome.policy) }
}

/** The sentence of a partial success: what became of the items that were not taken. */
function droppedMessage(policy: 'drop' | 'sample'): string {
  return policy === 'drop'
    ? 'the queue is full and the overflow policy is drop: nothing of this request was kept'
    : 'the queue is full and the overflow policy is sample: this request was not in the sample'
}
