import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const runner = fileURLToPath(new URL('../../../shared/conformance/run.mjs', import.meta.url))

/**
 * Sends every case of `../shared/conformance` to an OTLP/HTTP endpoint over one connection.
 *
 * @returns what the runner printed, line by line: one line for each case that failed, and the totals last.
 * @throws Error that says where the cases are expected when they are not there.
 */
export async function runConformance(baseUrl: string): Promise<string[]> {
  if (!existsSync(runner)) {
    throw new Error(`The conformance cases are missing: they are expected beside this checkout, at ${runner}`)
  }
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [runner, baseUrl], { timeout: 60_000 }, (error, stdout, stderr) => {
      // The runner ends with 1 when a case fails; its lines say which.
      if (stdout === '') reject(new Error(`the conformance runner said nothing: ${stderr}`, { cause: error }))
      else resolve(stdout.trimEnd().split('\n'))
    })
  })
}
