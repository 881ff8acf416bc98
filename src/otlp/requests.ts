import { fieldEnd, varint, varintEnd, varintLength, writeVarint } from './wire.ts'

/** Tags of the fields on the way from a trace request to the id of a span. */
const resourceSpansTag = 0x0a
const scopeSpansTag = 0x12
const spanTag = 0x12
const traceIdTag = 0x0a

/**
 * What a trace request holds of one trace, as a request of its own: of each ResourceSpans and ScopeSpans that has spans of
 * the trace all fields, and only those spans. No bytes when there are none. The fields keep their bytes and their order;
 * `body` must have passed the walk, and may be several requests one after the other.
 */
export function splitTrace(body: Buffer, traceId: Buffer): Buffer {
  const kept = keepFields(body, 0, body.length, resourceSpansTag, (start, end) =>
    keepFields(body, start, end, scopeSpansTag, (scopeStart, scopeEnd) =>
      keepFields(body, scopeStart, scopeEnd, spanTag, (spanStart, spanEnd) =>
        isOfTrace(body, spanStart, spanEnd, traceId) ? [body.subarray(spanStart, spanEnd)] : undefined,
      ),
    ),
  )
  return kept === undefined ? Buffer.alloc(0) : Buffer.concat(kept)
}

/**
 * The parts of the message from `start` to `end` with each field of `tag` replaced by what `keep` makes of its value, or
 * left out where that is undefined. Undefined when none is kept.
 */
function keepFields(
  body: Buffer,
  start: number,
  end: number,
  tag: number,
  keep: (start: number, end: number) => Buffer[] | undefined,
): Buffer[] | undefined {
  const parts: Buffer[] = []
  let any = false
  let at = start
  while (at < end) {
    const fieldStart = at
    const fieldTag = varint(body, at)
    const afterTag = varintEnd(body, at)
    at = fieldEnd(body, afterTag, fieldTag)
    if (fieldTag !== tag) {
      parts.push(body.subarray(fieldStart, at))
      continue
    }
    const kept = keep(varintEnd(body, afterTag), at)
    if (kept === undefined) continue
    any = true
    const length = kept.reduce((sum, part) => sum + part.length, 0)
    const header = Buffer.allocUnsafe(1 + varintLength(length))
    header[0] = tag
    writeVarint(header, 1, length)
    parts.push(header, ...kept)
  }
  return any ? parts : undefined
}

function isOfTrace(body: Buffer, start: number, end: number, traceId: Buffer): boolean {
  let found = false
  let at = start
  while (at < end) {
    const tag = varint(body, at)
    const afterTag = varintEnd(body, at)
    at = fieldEnd(body, afterTag, tag)
    // The last counts where a field comes twice.
    if (tag === traceIdTag) found = traceId.equals(body.subarray(varintEnd(body, afterTag), at))
  }
  return found
}
