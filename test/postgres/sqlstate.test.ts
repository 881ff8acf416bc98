import postgres from 'postgres'
import { expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { classifyPostgresError, isMissingPartition } from '../../src/postgres/sqlstate.ts'

/** As postgres.js makes one of the server's answer. Its constructor is not in its types. */
function serverError(code: string, fields: object = {}): Error {
  const PostgresError = postgres.PostgresError as unknown as new (fields: object) => Error
  return new PostgresError({ code, severity: 'ERROR', message: 'said the server', ...fields })
}

const byKind = {
  data: ['22001', '22021', '22P02', '22P05', '23502', '23505', '23514', '54000'],
  outage: [
    '08000', '08006', '08P01', '0A000', '25006', '25P03', '40001', '40P01', '53100', '53200', '53300', '55006',
    '55P03', '57014', '57P01', '57P02', '57P03', '57P05', '58030', '25P04', '40002', '40003', '53400', '72000',
  ],
  configuration: [
    '28000', '28P01', '3D000', '3F000', '42501', '42P01', '42703', '42883', '57P04', '26000', '42P05',
    '22023', '42704', '42804', '428C9', '42P10', '55P02', 'F0000', 'XX001', 'XX002',
  ],
  bug: ['42601', '21000', 'SL001', 'SL002', 'XX000', '25P02'],
} // biome-ignore format: one line a kind

test.each(Object.entries(byKind))('an error of the server is %s for its SQLSTATE', (kind, codes) => {
  for (const code of codes) {
    const error = serverError(code)
    const failure = classifyPostgresError(error)
    expect({ kind: failure.kind, code: failure.code, cause: failure.cause }).toEqual({
      kind,
      code,
      cause: error,
    })
    // What nobody but an operator can mend comes with a sentence on how.
    expect(typeof failure.fix).toBe(kind === 'configuration' ? 'string' : 'undefined')
  }
})

test.each([
  'CONNECTION_CLOSED',
  'CONNECTION_DESTROYED',
  'CONNECTION_ENDED',
  'CONNECT_TIMEOUT',
  'ECONNREFUSED',
  'ECONNRESET',
  'ENOENT',
  'ENOTFOUND',
  'EPIPE',
  'ETIMEDOUT',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ERR_STREAM_DESTROYED',
])('%s is an outage', (code) => {
  // biome-ignore format: a list
  const failure = classifyPostgresError(Object.assign(new Error('socket'), { code }))
  expect({ kind: failure.kind, code: failure.code }).toEqual({ kind: 'outage', code })
})

test('a message says first what it means, then what the server said', () => {
  expect(classifyPostgresError(serverError('53300')).message).toBe(
    'the database is short of something: said the server',
  )
  const refused = new AggregateError([], '')
  expect(classifyPostgresError(Object.assign(refused, { code: 'ECONNREFUSED' })).message).toBe(
    'no database takes connections there: ECONNREFUSED',
  )
})

test('what nobody knows is a bug, and a failure stays what it is', () => {
  const failure = new Failure('data', 'classified')
  expect(classifyPostgresError(failure)).toBe(failure)
  expect(classifyPostgresError('text').kind).toBe('bug')
  expect(classifyPostgresError(new TypeError('of ours')).kind).toBe('bug')
})

test('a row without a partition is no fault of the data, a violated CHECK of the same table is', () => {
  const missing = serverError('23514', { table_name: 'trace_index' })
  expect(isMissingPartition(missing)).toBe(true)
  expect(classifyPostgresError(missing).kind).toBe('outage')
  expect(isMissingPartition(classifyPostgresError(missing))).toBe(true)
  const violated = serverError('23514', { table_name: 'trace_index', constraint_name: 'some_check' })
  expect(isMissingPartition(violated)).toBe(false)
  expect(classifyPostgresError(violated).kind).toBe('data')
  expect(isMissingPartition(undefined)).toBe(false)
})
