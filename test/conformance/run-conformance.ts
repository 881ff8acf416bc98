import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const runner = fileURLToPath(new URL('../../../shared/conformance/run.mjs', import.meta.url))

/**
 * Sends every case of `../shared/conformance` to an OTLP/HTTP endpoint over one connection.
 *
 * @returns what the runner printed, line by line: one line for each case that failed, and the totals last.
 * The cases are not part of this repository: where they are not there, it says so and answers undefined.
 */
export async function runConformance(baseUrl: string): Promise<string[] | undefined> {
  if (!existsSync(runner)) {
    process.stdout.write(
      `The conformance cases were not run: they are expected beside this checkout, at ${runner}\n`,
    )
    return undefined
  }
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [runner, baseUrl], { timeout: 60_000 }, (error, stdout, stderr) => {
      // The runner ends with 1 when a case fails; its lines say which.
      if (stdout === '') reject(new Error(`the conformance runner said nothing: ${stderr}`, { cause: error }))
      else resolve(stdout.trimEnd().split('\n'))
    })
  })
}
