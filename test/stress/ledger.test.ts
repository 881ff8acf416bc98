import { expect, it } from 'vitest'
import { generateRequest } from '../../stress/generator.ts'
import type { Answer } from '../../stress/http-client.ts'
import { Ledger, promisedBy } from '../../stress/ledger.ts'

function answered(status: number): Answer {
  return {
    kind: 'answered',
    status,
    retryAfter: undefined,
    contentType: undefined,
    body: Buffer.alloc(0),
    tookMs: 1,
  }
}

const lost: Answer = { kind: 'lost', why: 'ECONNRESET', tookMs: 1 }

it('200 promises the store, 5xx and silence nothing certain, everything else that nothing is stored', () => {
  const promised = [200, 202, 400, 413, 429, 503].map((status) => promisedBy(answered(status)))
  expect([...promised, promisedBy(lost)]).toEqual([
    'stored',
    'nothing',
    'nothing',
    'nothing',
    'nothing',
    'unknown',
    'unknown',
  ])
})

it('a request equals its own bytes and no others', () => {
  const ledger = new Ledger()
  for (let index = 0; index < 40; index++) {
    const request = generateRequest({ seed: 1, run: 'ledger' }, index)
    const entry = ledger.record(request, answered(200))
    const other = Buffer.from(request.protobuf)
    const at = other.indexOf('stress:')
    other.write('x', at, 'latin1')
    expect([entry.equals(request.protobuf), entry.equals(other)]).toEqual([true, false])
  }
})

it('the same request cannot be sent twice without notice', () => {
  const ledger = new Ledger()
  const request = generateRequest({ seed: 1, run: 'ledger' }, 0)
  ledger.record(request, lost)
  expect(() => ledger.record(request, answered(200))).toThrow('was sent twice')
})

it('describes how often each answer came', () => {
  const ledger = new Ledger()
  for (const [index, answer] of [answered(200), answered(200), lost, answered(429)].entries()) {
    ledger.record(generateRequest({ seed: 1, run: 'ledger' }, index), answer)
  }
  expect(ledger.describe()).toBe('200 × 2, 429 × 1, no answer × 1')
})
