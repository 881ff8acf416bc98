import type { AnswerWatch, Piece } from './proxy.ts'

/**
 * Follows the requests of one HTTP/1.1 connection, one after the other. The answer to a request is named by its
 * method, its target and its status, `PUT /bucket/key 200`, and a request by the first two.
 */
export class S3Answers implements AnswerWatch {
  #asked: string | undefined

  request(chunk: Buffer): string | undefined {
    if (this.#asked !== undefined) return undefined
    this.#asked = /^([A-Z]+ \S+) HTTP\/1\.1\r\n/.exec(chunk.toString('latin1', 0, 4096))?.[1]
    return this.#asked
  }

  answer(chunk: Buffer): Piece[] {
    const status = /^HTTP\/1\.1 (\d{3})/.exec(chunk.toString('latin1', 0, 16))?.[1]
    if (this.#asked === undefined || status === undefined || status === '100') return [{ bytes: chunk }]
    const answers = `${this.#asked} ${status}`
    this.#asked = undefined
    return [{ bytes: chunk, answers }]
  }
}
