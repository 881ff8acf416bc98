import { OtlpError } from './error.ts'
import { BadStrings, repairStrings } from './repair.ts'
import { messageDepthMax } from './schema.ts'
import type { Signal } from './signal.ts'
import type { Summary } from './summary.ts'
import { TraceHashSet } from './trace-hash-set.ts'
import { validUtf8 } from './utf8.ts'
import { fault, fieldFault, mismatch, openStack } from './walk-stack.ts'
import {
  fieldKinds,
  fieldOps,
  firstKindWithEnd,
  groupKind,
  logRecordKind,
  op,
  profilesOutlineKind,
  requestKinds,
  serviceKeyValueKind,
  tagsPerMessage,
} from './walk-table.ts'

export { traceHash } from './trace-hash-set.ts'

/** What a walk found. */
export interface Walked {
  /** Spans, data points, log records or profiles. */
  items: number
  summary: Summary
  /** The walked buffer itself, or a new one where strings were repaired. */
  body: Buffer
  /** Strings that were not UTF-8 and have U+FFFD in `body` where the bad bytes were. */
  repairedStrings: number
}

/** Most distinct service names that a summary keeps. */
const servicesMax = 64
const serviceCharactersMax = 256
const serviceKey = Buffer.from('service.name')

/** Varints of tags and lengths: what the decoders of C++ and Python take at most. */
const shortVarintBytesMax = 5
/** Varints of values. */
const varintBytesMax = 10

const groupStart = 3
const groupEnd = 4

// The walk never yields and never calls itself, so one set serves all.
const traceHashes = new TraceHashSet()

/**
 * Walks an export request to the bottom, without decoding it: framing, wire types of known fields, lengths of ids,
 * nesting (`maxDepth` messages below the request, 100 unless told) and UTF-8 of strings. Unknown fields are skipped,
 * their framing is checked. What passes is taken by the protobuf decoders of C++, Java, Python, Go and JavaScript.
 *
 * Strings that are not UTF-8 are repaired, each maximal bad part becoming one U+FFFD as in the Encoding standard.
 *
 * Of profiles, whose messages still change between releases, those that are not as this release knows them are walked as
 * far as OTLP is stable: what is in a profile and in the dictionary is neither refused, but for its framing, nor changed.
 *
 * A loop over a table, without recursion or an object a field: 2.3 million spans of an SDK a second and core, 460 MB/s.
 *
 * @throws {OtlpError} naming the field, for everything else that is wrong.
 */
export function walk(signal: Signal, body: Buffer, options: { maxDepth?: number } = {}): Walked {
  const maxDepth = options.maxDepth ?? messageDepthMax
  try {
    return walkFrom(requestKinds[signal], { signal, body, maxDepth })
  } catch (thrown) {
    if (signal !== 'profiles' || !(thrown instanceof OtlpError) || thrown.rule === 'depth') throw thrown
    return walkFrom(profilesOutlineKind, { signal, body, maxDepth })
  }
}

/** The walk of a request whose outermost message is of `requestKind`. */
function walkFrom(
  requestKind: number,
  { signal, body, maxDepth }: { signal: Signal; body: Buffer; maxDepth: number },
): Walked {
  const { ends, kinds, tags } = openStack(maxDepth)
  traceHashes.clear()
  const services = new Set<string>()
  let servicesCut = false

  let items = 0
  let bad: BadStrings | undefined
  // Times as halves of 64 bits, the high one below 2^31: a BigInt for each would cost more than the rest of the walk.
  let minHigh = 0x7fffffff
  let minLow = 0xffffffff
  let maxHigh = 0
  let maxLow = 0
  let logHigh = 0
  let logLow = 0
  let observedHigh = 0
  let observedLow = 0
  let lastHashHigh = 0
  let lastHashLow = 0
  let anyTrace = false
  let serviceKeySeen = false
  let serviceStart = -1
  let serviceEnd = -1

  const view = new DataView(body.buffer, body.byteOffset, body.length)
  let at = 0
  let end = body.length
  let kind = requestKind
  let depth = 0
  ends[0] = end
  kinds[0] = kind
  tags[0] = 0

  for (;;) {
    while (at === end) {
      if (kind >= firstKindWithEnd) {
        if (kind === logRecordKind) {
          if (logHigh === 0 && logLow === 0) {
            logHigh = observedHigh
            logLow = observedLow
          }
          if (logHigh < 0x80000000 && (logHigh !== 0 || logLow !== 0)) {
            if (logHigh < minHigh || (logHigh === minHigh && logLow < minLow)) {
              minHigh = logHigh
              minLow = logLow
            }
            if (logHigh > maxHigh || (logHigh === maxHigh && logLow > maxLow)) {
              maxHigh = logHigh
              maxLow = logLow
            }
          }
          logHigh = logLow = observedHigh = observedLow = 0
        } else if (kind === serviceKeyValueKind) {
          // Once it is known that names are left out, no further one says anything.
          if (serviceKeySeen && serviceStart !== -1 && !servicesCut) {
            const name = serviceName(body, serviceStart, serviceEnd)
            if (services.size < servicesMax) services.add(name)
            else if (!services.has(name)) servicesCut = true
          }
          serviceKeySeen = false
          serviceStart = -1
        } else if (kind === groupKind) {
          throw fault(signal, depth, at, 'a group that has no end')
        }
      }
      if (depth === 0) {
        const hasTime = maxHigh !== 0 || maxLow !== 0
        return {
          items,
          summary: {
            minTimeUnixNano: hasTime ? join(minHigh, minLow) : undefined,
            maxTimeUnixNano: hasTime ? join(maxHigh, maxLow) : undefined,
            services: [...services],
            traceHashes: traceHashes.toArray(),
            cut: servicesCut || traceHashes.cut,
          },
          body: bad === undefined ? body : repairStrings(body, bad),
          repairedStrings: bad === undefined ? 0 : bad.count,
        }
      }
      depth--
      end = ends[depth] as number
      kind = kinds[depth] as number
    }

    const fieldAt = at
    let tag = body[at++] as number
    if (tag >= 0x80) {
      tag &= 0x7f
      let scale = 0x80
      for (;;) {
        if (at === end) throw fault(signal, depth, fieldAt, 'a tag that is cut off')
        const byte = body[at++] as number
        tag += (byte & 0x7f) * scale
        if (byte < 0x80) break
        scale *= 0x80
        if (at - fieldAt === shortVarintBytesMax)
          throw fault(signal, depth, fieldAt, 'a tag of more than 5 bytes')
      }
      if (tag > 0xffffffff) throw fault(signal, depth, fieldAt, 'a field number above 536,870,911')
    }
    if (tag < 8) throw fault(signal, depth, fieldAt, 'a field with the number 0')

    const cell = kind * tagsPerMessage + tag
    const operation = tag < tagsPerMessage ? (fieldOps[cell] as number) : op.unknown

    // Everything length-delimited first finds the end of its value.
    let stop = 0
    if ((tag & 7) === 2) {
      if (at === end) throw fieldFault(signal, depth, fieldAt, tag, 'has no length')
      let length = body[at++] as number
      if (length >= 0x80) {
        const lengthAt = at - 1
        length &= 0x7f
        let scale = 0x80
        for (;;) {
          if (at === end) throw fieldFault(signal, depth, fieldAt, tag, 'has a length that is cut off')
          const byte = body[at++] as number
          length += (byte & 0x7f) * scale
          if (byte < 0x80) break
          scale *= 0x80
          if (at - lengthAt === shortVarintBytesMax) {
            throw fieldFault(signal, depth, fieldAt, tag, 'has a length written in more than 5 bytes')
          }
        }
      }
      stop = at + length
      if (stop > end) {
        throw fieldFault(
          signal,
          depth,
          fieldAt,
          tag,
          `has a length of ${length} bytes where ${end - at} are left in what holds it`,
        )
      }
    }

    // Written as numbers, the cases become a table of jumps: 10 % of the whole walk.
    switch (operation) {
      case 5 satisfies typeof op.string: {
        // Four bytes at a time: 10 to 20 % of the whole walk.
        const lastFour = stop - 4
        while (at <= lastFour && (view.getInt32(at) & 0x80808080) === 0) at += 4
        while (at < stop && (body[at] as number) < 0x80) at++
        if (at !== stop) {
          if (!validUtf8(body, at, stop)) bad = BadStrings.with(bad, fieldAt)
          at = stop
        }
        break
      }

      case 9 satisfies typeof op.message:
      case 10 satisfies typeof op.item: {
        if (operation === (10 satisfies typeof op.item)) items++
        if (depth === maxDepth) {
          throw fieldFault(
            signal,
            depth,
            fieldAt,
            tag,
            `is nested more than ${maxDepth} messages deep`,
            'depth',
          )
        }
        depth++
        ends[depth] = end = stop
        kinds[depth] = kind = fieldKinds[cell] as number
        tags[depth] = tag
        break
      }

      case 2 satisfies typeof op.varint: {
        if ((body[at] as number) < 0x80 && at < end) at++
        else at = skipVarint(signal, body, at, end, depth, fieldAt, tag)
        break
      }

      case 14 satisfies typeof op.time: {
        at += 8
        if (at > end) throw fieldFault(signal, depth, fieldAt, tag, 'is cut off')
        const high = view.getUint32(at - 4, true)
        if (high < 0x80000000) {
          const low = view.getUint32(at - 8, true)
          if ((high < minHigh || (high === minHigh && low < minLow)) && (high !== 0 || low !== 0)) {
            minHigh = high
            minLow = low
          }
          if (high > maxHigh || (high === maxHigh && low > maxLow)) {
            maxHigh = high
            maxLow = low
          }
        }
        break
      }

      case 4 satisfies typeof op.fixed64: {
        at += 8
        if (at > end) throw fieldFault(signal, depth, fieldAt, tag, 'is cut off')
        break
      }

      case 3 satisfies typeof op.fixed32: {
        at += 4
        if (at > end) throw fieldFault(signal, depth, fieldAt, tag, 'is cut off')
        break
      }

      case 17 satisfies typeof op.spanTraceId: {
        if (stop - at === 16) {
          const high = view.getInt32(at) ^ view.getInt32(at + 8)
          const low = view.getInt32(at + 4) ^ view.getInt32(at + 12)
          if (low !== lastHashLow || high !== lastHashHigh || !anyTrace) {
            traceHashes.add(high, low)
            lastHashHigh = high
            lastHashLow = low
            anyTrace = true
          }
        } else if (stop !== at) {
          throw fieldFault(
            signal,
            depth,
            fieldAt,
            tag,
            `has ${stop - at} bytes; a trace id has 16 or none`,
            'id_length',
          )
        }
        at = stop
        break
      }

      case 8 satisfies typeof op.spanId: {
        if (stop - at !== 8 && stop !== at) {
          throw fieldFault(
            signal,
            depth,
            fieldAt,
            tag,
            `has ${stop - at} bytes; a span id has 8 or none`,
            'id_length',
          )
        }
        at = stop
        break
      }

      case 7 satisfies typeof op.traceId: {
        if (stop - at !== 16 && stop !== at) {
          throw fieldFault(
            signal,
            depth,
            fieldAt,
            tag,
            `has ${stop - at} bytes; a trace id has 16 or none`,
            'id_length',
          )
        }
        at = stop
        break
      }

      case 6 satisfies typeof op.bytes: {
        at = stop
        break
      }

      case 18 satisfies typeof op.serviceKey: {
        serviceKeySeen = stop - at === serviceKey.length && isServiceKey(body, at)
        if (!validUtf8(body, at, stop)) bad = BadStrings.with(bad, fieldAt)
        at = stop
        break
      }

      case 19 satisfies typeof op.serviceValue: {
        serviceStart = at
        serviceEnd = stop
        if (!validUtf8(body, at, stop)) bad = BadStrings.with(bad, fieldAt)
        at = stop
        break
      }

      case 15 satisfies typeof op.logTime: {
        at += 8
        if (at > end) throw fieldFault(signal, depth, fieldAt, tag, 'is cut off')
        logHigh = view.getUint32(at - 4, true)
        logLow = view.getUint32(at - 8, true)
        break
      }

      case 16 satisfies typeof op.observedTime: {
        at += 8
        if (at > end) throw fieldFault(signal, depth, fieldAt, tag, 'is cut off')
        observedHigh = view.getUint32(at - 4, true)
        observedLow = view.getUint32(at - 8, true)
        break
      }

      case 11 satisfies typeof op.packedVarint: {
        while (at < stop) {
          if ((body[at] as number) < 0x80) at++
          else at = skipVarint(signal, body, at, stop, depth, fieldAt, tag)
        }
        break
      }

      case 13 satisfies typeof op.packedFixed64: {
        if (((stop - at) & 7) !== 0) {
          throw fieldFault(signal, depth, fieldAt, tag, `has ${stop - at} bytes, no multiple of 8`)
        }
        at = stop
        break
      }

      case 12 satisfies typeof op.packedFixed32: {
        if (((stop - at) & 3) !== 0) {
          throw fieldFault(signal, depth, fieldAt, tag, `has ${stop - at} bytes, no multiple of 4`)
        }
        at = stop
        break
      }

      case 1 satisfies typeof op.mismatch:
        throw fieldFault(signal, depth, fieldAt, tag, mismatch(kind, tag), 'wire_type')

      default:
        switch (tag & 7) {
          case 0:
            at = skipVarint(signal, body, at, end, depth, fieldAt, tag)
            break
          case 1:
            at += 8
            if (at > end) throw fieldFault(signal, depth, fieldAt, tag, 'is cut off')
            break
          case 2:
            at = stop
            break
          case groupStart:
            // One less than messages: some decoders count the field that holds a group, too.
            if (depth + 1 >= maxDepth) {
              throw fieldFault(
                signal,
                depth,
                fieldAt,
                tag,
                `is nested more than ${maxDepth} messages deep`,
                'depth',
              )
            }
            depth++
            ends[depth] = end
            kinds[depth] = kind = groupKind
            tags[depth] = tag | 0
            break
          case groupEnd:
            if (depth === 0 || (tags[depth] as number) !== ((tag - 1) | 0)) {
              throw fieldFault(signal, depth, fieldAt, tag, 'is the end of a group that was not started')
            }
            depth--
            end = ends[depth] as number
            kind = kinds[depth] as number
            break
          case 5:
            at += 4
            if (at > end) throw fieldFault(signal, depth, fieldAt, tag, 'is cut off')
            break
          default:
            throw fieldFault(
              signal,
              depth,
              fieldAt,
              tag,
              `has the wire type ${tag & 7}, which does not exist`,
            )
        }
    }
  }
}

function join(high: number, low: number): bigint {
  return (BigInt(high) << 32n) | BigInt(low)
}

function isServiceKey(bytes: Buffer, start: number): boolean {
  for (let i = 0; i < serviceKey.length; i++) if (bytes[start + i] !== serviceKey[i]) return false
  return true
}

/** The text as the catalog may keep it: PostgreSQL's text takes no U+0000, and an index row no long value. */
function serviceName(bytes: Buffer, start: number, end: number): string {
  // No character has more than four bytes.
  const text = bytes.toString('utf8', start, Math.min(end, start + 4 * serviceCharactersMax))
  const cut = text.length <= serviceCharactersMax ? text : [...text].slice(0, serviceCharactersMax).join('')
  // Of the ways to replace, the one that does not slow down with what it finds.
  return cut.replace(/\0/g, '\ufffd')
}

function skipVarint(
  signal: Signal,
  bytes: Buffer,
  start: number,
  end: number,
  depth: number,
  fieldAt: number,
  tag: number,
): number {
  let at = start
  for (;;) {
    if (at === end) throw fieldFault(signal, depth, fieldAt, tag, 'is cut off')
    const byte = bytes[at++] as number
    if (at - start === varintBytesMax) {
      if (byte > 1) {
        throw fieldFault(signal, depth, fieldAt, tag, 'is a number of more than 64 bits', 'number_size')
      }
      return at
    }
    if (byte < 0x80) return at
  }
}
