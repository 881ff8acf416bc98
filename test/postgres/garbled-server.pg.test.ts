import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { noTls } from '../../src/postgres/location.ts'
import { MessageFrames } from '../../src/postgres/message-frames.ts'
import { answerOf, closePool, openPool } from '../../src/postgres/pool.ts'
import { FaultProxy } from '../../stress/faults/proxy.ts'
import { seededRandom } from '../../stress/seeded-random.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { listen, message, welcome } from './fake-server.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await cloneDatabase()
})
afterAll(() => database.drop())

test('messages are followed however they are cut, and what is no message is noticed at its first bytes', () => {
  const good = Buffer.concat([welcome, message('D', Buffer.alloc(300)), message('Z', Buffer.from('I'))])
  for (const step of [1, 3, 7, 64, good.length]) {
    const frames = new MessageFrames()
    for (let at = 0; at < good.length; at += step)
      expect(frames.follow(good.subarray(at, at + step))).toBe(true)
    expect(frames.follow(Buffer.from('\x00\x00\x00\x00\x00'))).toBe(false)
  }
  const tooShort = Buffer.from([0x5a, 0, 0, 0, 3])
  const tooLong = Buffer.from([0x44, 0x7f, 0xff, 0xff, 0xff])
  for (const bad of [tooShort, tooLong, Buffer.from('HTTP/1.1 400')]) {
    expect(new MessageFrames().follow(bad)).toBe(false)
  }
})

/** The server's first message of a login by SCRAM. */
function sasl(text: string): Buffer {
  return message('R', Buffer.concat([Buffer.from([0, 0, 0, 11]), Buffer.from(text)]))
}

test.each([
  ['what is no PostgreSQL', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), 'no message of PostgreSQL'],
  ['a challenge without a number of iterations', sasl('r=abc,s=QUJD,i=x'), 'no message of PostgreSQL'],
  ['a challenge of endless iterations', sasl('r=abc,s=QUJD,i=4000000000'), 'no message of PostgreSQL'],
  ['a challenge without salt', sasl('r=abc,i=4096'), 'no message of PostgreSQL'],
  ['an authentication that nobody knows', message('R', Buffer.from([0, 0, 0x8e, 0x0a])), '36362'],
])(
  '%s at the place of the database is an outage at once, and nothing is printed',
  async (_what, said, sentence) => {
    const printed = vi.spyOn(console, 'error').mockImplementation(() => undefined)
    const server = await listen((socket) => {
      socket.once('data', () => socket.write(said))
    }, database.location)
    const sql = openPool({
      url: { ...server.location, tls: noTls },
      name: 'garbled',
      connections: 1,
      statementTimeoutMs: 60_000,
      connectTimeoutMs: 60_000,
    })
    try {
      const failure = await answerOf(sql, sql`SELECT 1`).catch((thrown: unknown) => thrown)
      expect(failure).toMatchObject({ kind: 'outage', code: 'ECONNRESET' })
      expect(String(failure)).toContain(sentence)
      expect(printed).not.toHaveBeenCalled()
    } finally {
      await closePool(sql, 100)
      await server.close()
      printed.mockRestore()
    }
  },
)

test('while answers are garbled every statement is settled, nothing is printed, and afterwards all is well', async () => {
  const printed = vi.spyOn(console, 'error').mockImplementation(() => undefined)
  const { host, port } = database.location
  const proxy = await FaultProxy.start({
    target: { path: `${host}/.s.PGSQL.${port}` },
    random: seededRandom(7),
  })
  const sql = openPool({
    url: { ...database.location, host: '127.0.0.1', port: proxy.port, tls: noTls },
    name: 'garbled',
    connections: 4,
    statementTimeoutMs: 1_000,
  })
  try {
    proxy.set({ kind: 'garbled', direction: 'to client', bytesBetween: 200 })
    let failed = 0
    const lane = async () => {
      for (let i = 0; i < 60; i++) {
        await answerOf(sql, sql`SELECT n::bigint, md5(n::text) FROM generate_series(1, 3) AS n`).catch(() => {
          failed++
        })
      }
    }
    await Promise.all([lane(), lane(), lane(), lane()])
    expect(failed).toBeGreaterThan(20)
    proxy.set({ kind: 'open' })
    await expect
      .poll(() => answerOf(sql, sql`SELECT 7 AS seven`).catch(() => []), { timeout: 15_000 })
      .toEqual([{ seven: 7 }])
    expect(printed.mock.calls).toEqual([])
  } finally {
    await closePool(sql, 100)
    await proxy.stop()
    printed.mockRestore()
  }
}, 120_000)
