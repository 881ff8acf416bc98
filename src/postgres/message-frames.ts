const HEADER_BYTES = 5
/** PostgreSQL itself takes and sends no message over 1 GiB. */
const MESSAGE_BYTES_MAX = 1024 ** 3
/** What a server may send (PostgreSQL documentation, 54.7 "Message Formats"). */
const serverTypes = new Set([...'123ACDEGHIKNRSTVWZcdnstv'].map((letter) => letter.charCodeAt(0)))

/**
 * Follows the messages of a server from one to the next. What is no message is a connection that was garbled, or no
 * PostgreSQL: waiting for the rest of it would be waiting for ever.
 */
export class MessageFrames {
  readonly #head = Buffer.alloc(HEADER_BYTES)
  #headBytes = 0
  #bodyLeft = 0

  /** Takes the next bytes; false as soon as they cannot be messages. */
  follow(chunk: Buffer): boolean {
    for (let at = 0; at < chunk.length; ) {
      if (this.#bodyLeft > 0) {
        const taken = Math.min(this.#bodyLeft, chunk.length - at)
        this.#bodyLeft -= taken
        at += taken
        continue
      }
      const taken = chunk.copy(this.#head, this.#headBytes, at, at + HEADER_BYTES - this.#headBytes)
      at += taken
      this.#headBytes += taken
      if (this.#headBytes < HEADER_BYTES) return true
      this.#headBytes = 0
      const length = this.#head.readUInt32BE(1)
      if (!serverTypes.has(this.#head[0] ?? 0) || length < 4 || length > MESSAGE_BYTES_MAX) return false
      this.#bodyLeft = length - 4
    }
    return true
  }
}
