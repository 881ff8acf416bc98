import { readFileSync } from 'node:fs'

interface Results {
  numPassedTests: number
  numFailedTests: number
  /** Suites that could not even be loaded count nothing in the numbers above. */
  testResults: { status: string; assertionResults: unknown[] }[]
  success: boolean
}

/** Prints "N passed, N failed" for the JSON results of vitest, and fails unless some passed and none failed. */
const [, , file = ''] = process.argv
let text = ''
try {
  text = readFileSync(file, 'utf8')
} catch {
  // The same as an empty file: the runner did not come to its end.
}
const results: Results =
  text === ''
    ? { numPassedTests: 0, numFailedTests: 1, testResults: [], success: false }
    : (JSON.parse(text) as Results)
const broken = results.testResults.filter(
  ({ status, assertionResults }) => status === 'failed' && assertionResults.length === 0,
).length
const failed = results.numFailedTests + broken
process.stdout.write(`${results.numPassedTests} passed, ${failed} failed\n`)
process.exitCode = results.success && failed === 0 && results.numPassedTests > 0 ? 0 : 1
