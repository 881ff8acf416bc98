import { expect, test } from 'vitest'
import { Failure, type FailureKind } from '../../src/foundation/failure.ts'
import { judge, judgeTakenOver } from '../../src/relay/failure-policy.ts'

const quiet = { attemptsMax: 8, othersSucceed: false }
const busy = { attemptsMax: 8, othersSucceed: true }
const verdict = (kind: FailureKind, batch: Partial<Parameters<typeof judge>[1]>, circumstances = quiet) =>
  judge(new Failure(kind, 'x'), { rows: 25, attempts: 0, failedAlike: false, ...batch }, circumstances)

test('an outage or a wrong setting is nobody’s fault, however often it comes', () => {
  for (const kind of ['outage', 'configuration'] as const) {
    for (const rows of [1, 25]) {
      expect(verdict(kind, { rows, attempts: 7, failedAlike: true }, busy)).toBe('retry')
    }
  }
})

test('a batch that fails for its data is split until the culprit is alone, which then counts and is buried', () => {
  expect(verdict('data', { rows: 25, attempts: 100 })).toBe('split')
  expect(verdict('data', { rows: 2 })).toBe('split')
  expect(verdict('data', { rows: 1, attempts: 0 })).toBe('count')
  expect(verdict('data', { rows: 1, attempts: 6 })).toBe('count')
  expect(verdict('data', { rows: 1, attempts: 7 })).toBe('bury')
})

test('an error that nobody classified is an outage, unless it comes again while other batches succeed', () => {
  expect(verdict('bug', { rows: 25, failedAlike: false }, busy)).toBe('retry')
  expect(verdict('bug', { rows: 25, failedAlike: true }, quiet)).toBe('retry')
  expect(verdict('bug', { rows: 25, failedAlike: true }, busy)).toBe('split')
  expect(verdict('bug', { rows: 1, failedAlike: true }, busy)).toBe('count')
})

test('a batch whose third holder vanished is halved; a single row gets as many holders as attempts', () => {
  const judged = (rows: number, takeovers: number) => judgeTakenOver({ rows, takeovers }, quiet)
  expect([judged(25, 2), judged(25, 3)]).toEqual(['write', 'split'])
  expect([judged(1, 3), judged(1, 7), judged(1, 8)]).toEqual(['write', 'write', 'bury'])
})
