import {
  type Field,
  itemMessages,
  type Message,
  messages,
  requestMessages,
  unstableMessages,
  wireTypeOf,
} from './schema.ts'
import type { Signal } from './signal.ts'

/** What the walk does with a field; see `fieldOps`. A plain object, because type stripping knows no enums. */
export const op = {
  unknown: 0,
  mismatch: 1,
  varint: 2,
  fixed32: 3,
  fixed64: 4,
  string: 5,
  bytes: 6,
  traceId: 7,
  spanId: 8,
  message: 9,
  item: 10,
  packedVarint: 11,
  packedFixed32: 12,
  packedFixed64: 13,
  time: 14,
  logTime: 15,
  observedTime: 16,
  spanTraceId: 17,
  serviceKey: 18,
  serviceValue: 19,
} as const

/** A tag of one byte or the first two bytes: field numbers below 32, all that OTLP uses. */
export const tagsPerMessage = 256

/** A message of which the walk knows no field. */
export const unknownMessage = 0

/** How the walk looks at a message: in full, as part of a resource, or of a request of profiles of another release. */
type View = 'full' | 'resource' | 'outline'

/**
 * A message as the walk knows it. Attributes of a resource are walked as kinds of their own, so that no other attribute
 * pays for the search for `service.name`.
 */
interface Kind {
  readonly message: Message | undefined
  readonly view: View
}

const kinds: Kind[] = [{ message: undefined, view: 'full' }]
for (const message of messages.values()) kinds.push({ message, view: 'full' })
for (const name of ['ExportProfilesServiceRequest', 'ResourceProfiles', 'ScopeProfiles']) {
  kinds.push({ message: messages.get(name), view: 'outline' })
}

function kindOf(message: Message, view: View): number {
  if (view === 'outline' && unstableMessages.has(message)) return unknownMessage
  const viewed = kinds.findIndex((kind) => kind.message === message && kind.view === view)
  return viewed === -1 ? kindOf(message, 'full') : viewed
}

/** Kinds from this number on have something to be done when they end. */
export const firstKindWithEnd = kinds.length - 1
// The last of the plain kinds must be LogRecord, whose end settles which of its two times counts.
const logRecord = kinds.findIndex((kind) => kind.message?.name === 'LogRecord')
kinds.push(...kinds.splice(logRecord, 1))
export const logRecordKind = firstKindWithEnd
for (const name of ['KeyValue', 'AnyValue']) {
  const message = messages.get(name)
  kinds.push({ message, view: 'resource' })
}
/** What is in a group: as little known as in an unknown message, but it must not end where its parent does. */
export const groupKind = kinds.push({ message: undefined, view: 'full' }) - 1
/** An attribute of a resource; its end settles whether it was the name of a service. */
export const serviceKeyValueKind = firstKindWithEnd + 1

/** `fieldOps[kind * tagsPerMessage + tag]` is the `op` for that tag in that message. */
export const fieldOps = new Uint8Array(kinds.length * tagsPerMessage)
/** The kind of the message that the field holds, at the same place. */
export const fieldKinds = new Uint8Array(kinds.length * tagsPerMessage)

for (const [kind, { message, view }] of kinds.entries()) {
  for (const field of message?.fields ?? []) {
    const row = kind * tagsPerMessage + field.number * 8
    fieldOps.fill(op.mismatch, row, row + 8)
    const wireType = wireTypeOf(field)
    fieldOps[row + wireType] = opOf(message?.name ?? '', view, field)
    if (field.kind === 'message') {
      const isServiceHolder = message?.name === 'Resource' && field.name === 'attributes'
      fieldKinds[row + wireType] = kindOf(field.message, isServiceHolder ? 'resource' : view)
    }
    if (field.repeated && wireType !== 2) {
      fieldOps[row + 2] =
        wireType === 0 ? op.packedVarint : wireType === 1 ? op.packedFixed64 : op.packedFixed32
    }
  }
}

function opOf(message: string, view: View, field: Field): number {
  const inResource = view === 'resource'
  switch (field.kind) {
    case 'message':
      return itemMessages.has(field.message) ? op.item : op.message
    case 'string':
      if (inResource && field.name === 'key') return op.serviceKey
      if (inResource && field.name === 'string_value') return op.serviceValue
      return op.string
    case 'bytes':
      return op.bytes
    case 'traceId':
      return message === 'Span' ? op.spanTraceId : op.traceId
    case 'spanId':
      return op.spanId
    case 'fixed32':
      return op.fixed32
    case 'fixed64':
      if (message === 'Span' && /^(start|end)_time/.test(field.name)) return op.time
      if ((message.endsWith('DataPoint') || message === 'Profile') && field.name === 'time_unix_nano')
        return op.time
      if (message === 'LogRecord') return field.name === 'time_unix_nano' ? op.logTime : op.observedTime
      return op.fixed64
    case 'sfixed64':
    case 'double':
      return op.fixed64
    default:
      return op.varint
  }
}

/** The kind that a request of each signal starts with. */
export const requestKinds: Record<Signal, number> = {
  traces: kindOf(requestMessages.traces, 'full'),
  metrics: kindOf(requestMessages.metrics, 'full'),
  logs: kindOf(requestMessages.logs, 'full'),
  profiles: kindOf(requestMessages.profiles, 'full'),
}

/** The kind that a request of profiles starts with of which only the outline is as this release knows it. */
export const profilesOutlineKind = kindOf(requestMessages.profiles, 'outline')

/** The field that `tag` names in a message of `kind`, if the schema knows it. */
export function fieldOfTag(kind: number, tag: number): Field | undefined {
  return kinds[kind]?.message?.fields.find((field) => field.number === tag >>> 3)
}
