import { spawn } from 'node:child_process'
import { once } from 'node:events'

const progressEveryMs = 15_000
const outputCharactersKept = 8_000

/** How a command is run, besides its words. */
export interface LongCommand {
  /** Added to our own environment. */
  env?: NodeJS.ProcessEnv
  /** The folder it runs in; ours if not given. */
  cwd?: string
}

/**
 * Runs a command that may take minutes, with a line of progress on standard output now and then.
 *
 * @throws Error with the end of what the command wrote, when it cannot be started or fails.
 */
export async function runLong(
  what: string,
  command: string,
  words: readonly string[],
  { env = {}, cwd }: LongCommand = {},
): Promise<void> {
  const startedMs = performance.now()
  const seconds = () => Math.round((performance.now() - startedMs) / 1000)
  const child = spawn(command, words, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(cwd === undefined ? {} : { cwd }),
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-outputCharactersKept)
    })
  }
  const progress = setInterval(() => console.log(`${what}: ${seconds()} s so far`), progressEveryMs)
  try {
    const [code] = await once(child, 'close')
    if (code !== 0) throw new Error(`${what} failed with exit code ${code}:\n${output.trim()}`)
  } finally {
    clearInterval(progress)
  }
  console.log(`${what}: done in ${seconds()} s`)
}
