import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { checksumOf } from '../../src/sink/object-key.ts'

const run = promisify(execFile)

/** Runs a reader that must be on the PATH, and answers what it printed. */
export async function read(program: string, words: string[]): Promise<Buffer> {
  try {
    const options = { encoding: 'buffer', maxBuffer: 64 * 1024 * 1024, timeout: 60_000 } as const
    return (await run(program, words, options)).stdout
  } catch (cause) {
    const { code, stderr } = cause as { code?: unknown; stderr?: Buffer }
    if (code === 'ENOENT') {
      throw new Error(`This test reads an object with ${program}, which is not on the PATH: install it.`, {
        cause,
      })
    }
    throw new Error(`${program} ${words.join(' ')} failed: ${stderr?.toString().trim()}`, { cause })
  }
}

/** What `Gunzip.java`, `gunzip.go` and the Python line print about these bytes. */
export function described(bytes: Buffer): string {
  return `${bytes.length} ${checksumOf(bytes).slice('sha256:'.length)}`
}
