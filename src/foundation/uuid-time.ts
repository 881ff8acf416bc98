import { invariant } from './failure.ts'

const uuidV7Pattern = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

/** The time in a UUIDv7, in milliseconds since 1970 (RFC 9562, section 5.7: the first 48 bits). */
export function uuidV7Milliseconds(uuid: string): number {
  invariant(uuidV7Pattern.test(uuid), `${uuid} is not a UUIDv7 in lower case`)
  return Number.parseInt(uuid.slice(0, 8) + uuid.slice(9, 13), 16)
}
