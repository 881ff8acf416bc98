import { type Field, type Message, messages, requestMessages, wireTypeOf } from './schema.ts'
import type { Signal } from './signal.ts'

/** A field as the JSON parser meets it. */
export interface JsonField {
  readonly field: Field
  /** The tag of a value, with the wire type of a packed list where the field is a list of numbers. */
  readonly tag: number
  readonly packed: boolean
  /** Bits of the other fields of its oneof, by field number. */
  readonly rivals: number
  /** What a value of this field is made of; undefined for scalars. */
  readonly message: JsonMessage | undefined
}

interface NamedField {
  readonly name: Buffer
  readonly target: JsonField
}

/**
 * A message as the JSON parser meets it: its fields by the hash of their names, the lowerCamelCase one of OTLP JSON and
 * the one of the .proto file.
 */
export class JsonMessage {
  readonly name: string
  readonly #slots: (NamedField | undefined)[] = new Array<NamedField | undefined>(slots).fill(undefined)

  constructor(name: string) {
    this.name = name
  }

  add(name: string, target: JsonField): void {
    const bytes = Buffer.from(name)
    let slot = nameHash(bytes, 0, bytes.length) & (slots - 1)
    while (this.#slots[slot] !== undefined) {
      if (this.#slots[slot]?.name.equals(bytes)) return
      slot = (slot + 1) & (slots - 1)
    }
    this.#slots[slot] = { name: bytes, target }
  }

  /** The field whose name stands from `start` to `end`; `hash` is that of `nameHash`. */
  find(bytes: Buffer, start: number, end: number, hash: number): JsonField | undefined {
    let slot = hash & (slots - 1)
    for (;;) {
      const named = this.#slots[slot]
      if (named === undefined) return undefined
      if (named.name.length === end - start && sameBytes(named.name, bytes, start)) return named.target
      slot = (slot + 1) & (slots - 1)
    }
  }
}

/** More than twice as many as the names of any message, so that a search ends soon. */
const slots = 64

/** The hash of a name, one step a byte, so that the parser can make it while it looks for the name's end. */
export function nameHash(bytes: Buffer, start: number, end: number): number {
  let hash = 0
  for (let at = start; at < end; at++) hash = nameHashStep(hash, bytes[at] as number)
  return hash
}

export function nameHashStep(hash: number, byte: number): number {
  return (Math.imul(hash, 31) + byte) | 0
}

/** Whether the bytes from `start` on are those of `name`. */
export function sameBytes(name: Buffer, bytes: Buffer, start: number): boolean {
  for (let i = 0; i < name.length; i++) if (name[i] !== bytes[start + i]) return false
  return true
}

function compile(): Map<Message, JsonMessage> {
  const compiled = new Map<Message, JsonMessage>()
  for (const message of messages.values()) compiled.set(message, new JsonMessage(message.name))
  for (const [message, target] of compiled) {
    for (const field of message.fields) {
      const packed = field.repeated && wireTypeOf(field) !== 2
      const jsonField: JsonField = {
        field,
        tag: field.number * 8 + (packed ? 2 : wireTypeOf(field)),
        packed,
        rivals: message.fields
          .filter((other) => other !== field && other.oneof !== undefined && other.oneof === field.oneof)
          .reduce((bits, other) => bits | (1 << other.number), 0),
        message: field.kind === 'message' ? compiled.get(field.message) : undefined,
      }
      target.add(field.jsonName, jsonField)
      target.add(field.name, jsonField)
    }
  }
  return compiled
}

const compiled = compile()

/** The compiled form of a message of the schema. */
function jsonMessage(message: Message): JsonMessage {
  const found = compiled.get(message)
  if (found === undefined) throw new Error(`the schema has no message ${message.name}`)
  return found
}

/** What a request of each signal is read as. */
export const jsonRequests: Record<Signal, JsonMessage> = {
  traces: jsonMessage(requestMessages.traces),
  metrics: jsonMessage(requestMessages.metrics),
  logs: jsonMessage(requestMessages.logs),
  profiles: jsonMessage(requestMessages.profiles),
}
