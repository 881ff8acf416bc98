import { OtlpError, type OtlpRule, shortPath } from './error.ts'
import { type Field, messageDepthMax, wireTypeOf } from './schema.ts'
import type { Signal } from './signal.ts'
import { fieldOfTag, requestKinds } from './walk-table.ts'

/** The messages that a walk is in, from the outside in. */
export interface WalkStack {
  readonly ends: Int32Array
  readonly kinds: Uint8Array
  /** The tag by which each message was entered; of a group, the tag of its start. */
  readonly tags: Int32Array
}

// The walk never yields and never calls itself, so one stack serves all.
let stack = newStack(messageDepthMax)

function newStack(maxDepth: number): WalkStack {
  const length = maxDepth + 1
  return { ends: new Int32Array(length), kinds: new Uint8Array(length), tags: new Int32Array(length) }
}

/** The stack of the walk that begins; the errors below say where in it they are. */
export function openStack(maxDepth: number): WalkStack {
  if (stack.ends.length <= maxDepth) stack = newStack(maxDepth)
  return stack
}

/** What is wrong with the wire type of a known field. */
export function mismatch(kind: number, tag: number): string {
  const field = fieldOfTag(kind, tag) as Field
  return `has the wire type ${tag & 7} where ${wireTypeOf(field)} belongs`
}

/** The names of the fields that were entered on the way to `depth`, and their kinds. */
function path(signal: Signal, depth: number): string[] {
  const names: string[] = []
  let kind = requestKinds[signal]
  for (let level = 1; level <= depth; level++) {
    names.push(nameOf(kind, stack.tags[level] as number))
    kind = stack.kinds[level] as number
  }
  return names
}

function nameOf(kind: number, tag: number): string {
  return fieldOfTag(kind, tag)?.name ?? `field ${tag >>> 3}`
}

/** The error for something in the message at `depth` that is no field. */
export function fault(signal: Signal, depth: number, at: number, what: string): OtlpError {
  const where = path(signal, depth)
  const inside = where.length === 0 ? 'the request' : shortPath(where.join('.'))
  return new OtlpError(`not an export request of ${signal}: ${inside} has ${what} at byte ${at}`)
}

/** The error for a field of the message at `depth`. */
export function fieldFault(
  signal: Signal,
  depth: number,
  at: number,
  tag: number,
  what: string,
  rule?: OtlpRule,
): OtlpError {
  const where = path(signal, depth)
  where.push(nameOf(stack.kinds[depth] as number, tag))
  return new OtlpError(
    `not an export request of ${signal}: ${shortPath(where.join('.'))} at byte ${at} ${what}`,
    rule,
  )
}
