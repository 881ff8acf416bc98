import { expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { createLogger, type LogLevel } from '../../src/telemetry/log.ts'
import { manualClock } from '../support/clock.ts'

function setup(level: LogLevel = 'debug') {
  const clock = manualClock()
  const written: string[] = []
  const log = createLogger({ level, clock, destination: { write: (line) => written.push(line) } })
  return {
    clock,
    log,
    written,
    lines: () => written.map((line) => JSON.parse(line) as Record<string, unknown>),
  }
}

test('a line is one JSON object with level, time of the clock, event and fields', () => {
  const { log, written } = setup()
  log.warn('queue_saturated', { reason: 'queue_full_reject', request_id: 'r-1' })
  expect(written).toEqual([
    '{"level":"warn","time":"2030-01-01T00:00:00.000Z","event":"queue_saturated","reason":"queue_full_reject","request_id":"r-1"}\n',
  ])
})

test('lines below the level are not written', () => {
  const { log, lines } = setup('warn')
  log.debug('a')
  log.info('b')
  log.warn('c')
  log.error('d')
  expect(lines().map(({ event }) => event)).toEqual(['c', 'd'])
})

test('silent writes nothing', () => {
  const { log, written } = setup('silent')
  log.error('a')
  expect(written).toEqual([])
})

test('a named event is written at once, then once a second with the number of those not written', async () => {
  const { log, clock, lines } = setup()
  for (let i = 0; i < 1000; i++) log.warn('rate_limited', { reason: 'limit_exceeded', request_id: `r-${i}` })
  expect(lines()).toHaveLength(1)
  await clock.advance(1000)
  for (let i = 1000; i < 1010; i++)
    log.warn('rate_limited', { reason: 'limit_exceeded', request_id: `r-${i}` })
  await clock.advance(1000)
  await clock.advance(5000)
  log.warn('rate_limited', { reason: 'limit_exceeded', request_id: 'r-1010' })
  const line = (second: number, fields: object) => ({
    level: 'warn',
    time: `2030-01-01T00:00:0${second}.000Z`,
    event: 'rate_limited',
    reason: 'limit_exceeded',
    ...fields,
  })
  expect(lines()).toEqual([
    line(0, { request_id: 'r-0' }),
    line(1, { request_id: 'r-999', count: 999 }),
    line(2, { request_id: 'r-1009', count: 10 }),
    line(7, { request_id: 'r-1010' }),
  ])
})

test('every event of a flood is either a line or in a count', async () => {
  const { log, clock, lines } = setup()
  for (let second = 0; second < 5; second++) {
    for (let i = 0; i < 100 * (second + 1); i++) log.error('client_gone', { reason: 'reset' })
    await clock.advance(700)
  }
  await log.close()
  const total = lines().reduce((sum, { count }) => sum + Number(count ?? 1), 0)
  expect(total).toBe(1500)
})

test('an event without a name of its own gets twenty lines a second, then summaries', async () => {
  const { log, clock, lines } = setup()
  for (let i = 0; i < 30; i++) log.info('batch_split', { batch_id: `b-${i}` })
  await clock.advance(1000)
  expect(lines().map(({ batch_id, count }) => [batch_id, count])).toEqual([
    ...Array.from({ length: 20 }, (_, i) => [`b-${i}`, undefined]),
    ['b-29', 10],
  ])
})

test('reasons are summarised apart', async () => {
  const { log, clock, lines } = setup()
  for (const reason of ['SlowDown', '53100', 'SlowDown', '53100', '53100'])
    log.error('batch_persist_failed', { reason })
  await clock.advance(1000)
  expect(lines().map(({ reason, count }) => [reason, count])).toEqual([
    ['SlowDown', undefined],
    ['53100', undefined],
    ['SlowDown', 1],
    ['53100', 2],
  ])
})

test('a reason made of ever new text does not make the log remember ever more', async () => {
  const { log, clock, lines } = setup()
  for (let i = 0; i < 1000; i++) log.error('batch_persist_failed', { reason: `r-${i}` })
  await clock.advance(1000)
  expect(lines()).toHaveLength(258)
  expect(lines().at(-1)?.count).toBe(743)
})

test('close writes the summaries that are owed and leaves no timer behind', async () => {
  const { log, clock, lines } = setup()
  log.warn('load_shedding')
  log.warn('load_shedding')
  await log.close()
  expect(lines().map(({ event, count }) => [event, count])).toEqual([
    ['load_shedding', undefined],
    ['load_shedding', 1],
  ])
  expect(clock.sleepers).toBe(0)
})

test('an idle log has no timer', async () => {
  const { log, clock } = setup()
  log.info('started')
  await clock.advance(1000)
  expect(clock.sleepers).toBe(0)
})

test('an error is written with kind, code, message and causes', () => {
  const { log, lines } = setup()
  const reset = Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET', stack: 'at read' })
  log.error('batch_persist_failed', {
    error: new Failure('outage', 'put failed', { code: 'SlowDown', cause: reset }),
  })
  expect(lines()[0]?.error).toEqual({
    kind: 'outage',
    code: 'SlowDown',
    message: 'put failed',
    cause: { kind: 'Error', code: 'ECONNRESET', message: 'read ECONNRESET', stack: 'at read' },
  })
})

test('an error for several addresses says what happened at each', () => {
  const { log, lines } = setup()
  const error = new AggregateError([
    new Error('connect ECONNREFUSED ::1:5'),
    new Error('connect ECONNREFUSED 127.0.0.1:5'),
  ])
  log.error('database_away', { error: new Failure('outage', 'no connection', { cause: error }) })
  expect(lines()[0]?.error).toMatchObject({
    cause: {
      kind: 'AggregateError',
      message: 'connect ECONNREFUSED ::1:5; connect ECONNREFUSED 127.0.0.1:5',
    },
  })
})

test('causes that go in a circle end', () => {
  const { log, lines } = setup()
  const error = new Error('round')
  error.cause = error
  log.error('odd', { error })
  let depth = 0
  for (let at = lines()[0]?.error as { cause?: unknown } | undefined; at; at = at.cause as typeof at) depth++
  expect(depth).toBe(6)
})

test('what was thrown without being an error is written too', () => {
  const { log, lines } = setup()
  log.error('odd', { error: 'just words' })
  expect(lines()[0]?.error).toEqual({ message: 'just words' })
})

test('no secret is written: neither in fields, nor in texts, nor in errors', () => {
  const { log, written } = setup()
  log.info('started', {
    database: 'postgres://sluice:hunter2@db/sluice',
    S3_SECRET_KEY: 'hunter2',
    ADMIN_TOKEN: 'hunter2',
    authorization: 'Bearer hunter2',
    error: new Error('cannot reach postgres://sluice:hunter2@db:5432/x', {
      cause: new Error('redis://:hunter2@h'),
    }),
  })
  expect(written.join('')).not.toContain('hunter2')
  expect(written.join('')).toContain('postgres://******@db/sluice')
})

test('a text that is too long is cut', () => {
  const { log, lines } = setup()
  log.error('odd', { error: new Failure('bug', 'x'.repeat(10_000)) })
  expect(lines()[0]?.error).toEqual({ kind: 'bug', message: `${'x'.repeat(2000)}…` })
})

test('a field that JSON has no word for does not harm the line', () => {
  const { log, lines } = setup()
  log.info('odd', { rows: 12345678901234567890n, nothing: undefined })
  expect(lines()[0]).toEqual({
    level: 'info',
    time: '2030-01-01T00:00:00.000Z',
    event: 'odd',
    rows: '12345678901234567890',
  })
})
