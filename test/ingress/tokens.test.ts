import { afterAll, beforeAll, expect, test } from 'vitest'
import { systemClock } from '../../src/foundation/clock.ts'
import { AdminServer } from '../../src/ingress/admin.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { chunk, collectingLog, head, oneSpan, RawConnection, serveIngress } from './serve.ts'

const SECRET = 'c2VjcmV0LXRva2Vu=='
const PERCENT = 'Basic%20c2VjcmV0LXRva2Vu=='

/** The Authorization lines that exporters have been seen to send, one character a byte. */
const lines: Record<string, string[]> = {
  'as it should be': [`Authorization: Bearer ${SECRET}`],
  'in lower case': [`authorization: bearer ${SECRET}`],
  'with two spaces': [`Authorization: Bearer  ${SECRET}`],
  'with spaces around it': [`Authorization:   Bearer ${SECRET}   `],
  'still encoded for a URL': [`Authorization: Bearer%20${SECRET}`],
  'as Basic, still encoded for a URL': [`Authorization: ${PERCENT}`],
  'without a scheme': [`Authorization: ${SECRET}`],
  'in quotes': [`Authorization: "Bearer ${SECRET}"`],
  'without its padding': [`Authorization: Bearer ${SECRET.replaceAll('=', '')}`],
  'sent twice': [`Authorization: Bearer ${SECRET}`, `Authorization: Bearer ${SECRET}`],
  'with another before it': ['Authorization: Bearer wrong', `Authorization: Bearer ${SECRET}`],
  'with an é in latin-1': [`Authorization: Bearer ${SECRET}\xe9`],
  'with an é in UTF-8': [`Authorization: Bearer ${SECRET}\xc3\xa9`],
  empty: ['Authorization:'],
  'of 8 kB': [`Authorization: Bearer ${SECRET.repeat(450)}`],
}

for (const [shape, headers] of Object.entries(lines)) {
  test(`D13: OTLP is taken with a token ${shape}, and no answer and no line of the log shows it`, async () => {
    await using ingress = await serveIngress({ rateLimit: { perSecond: 0.001, burst: 3 } })
    const requests = [
      [head(...headers, `Content-Length: ${oneSpan.length}`), oneSpan],
      [head(...headers, 'Content-Length: 4'), Buffer.from('1234')],
      [head(...headers, 'Transfer-Encoding: chunked'), chunk(oneSpan), Buffer.from('no chunk\r\n')],
      // Beyond its rate, which is a line in the log.
      [head(...headers, `Content-Length: ${oneSpan.length}`), oneSpan],
    ] as const
    const received = []
    for (const [start, ...rest] of requests) {
      const connection = new RawConnection(ingress.port).write(start)
      for (const bytes of rest) connection.write(bytes)
      received.push(await connection.until(/\r\n\r\n/))
      connection.socket.destroy()
    }
    // What is no HTTP is a line in the log too.
    const broken = new RawConnection(ingress.port)
    broken.write(`${headers.join('\r\n')}\r\nPOST /v1/traces HTTP/1.1\r\n\r\n`)
    received.push(await broken.until(/\r\n\r\n/))
    broken.socket.destroy()
    expect(received.map((answer) => answer.slice(9, 12))).toEqual(['200', '400', '400', '429', '400'])
    const log = JSON.stringify(ingress.lines())
    expect(ingress.lines().map(({ event }) => event)).toEqual(['rate_limited', 'http_malformed'])
    expect([log.includes('c2VjcmV0'), received.join('').includes('c2VjcmV0')]).toEqual([false, false])
  })
}

const { log, lines: logged } = collectingLog()
const admin = new AdminServer({
  host: '127.0.0.1',
  port: 0,
  token: SECRET,
  ready: async () => ({ ok: true, checks: {} }),
  health: async () => ({ ok: true, checks: {} }),
  api: { '/traces/:id': async () => ({ status: 200, body: { found: true } }) },
  posts: {},
  counts: async () => createMetrics().registry,
  log,
  clock: systemClock,
})
beforeAll(() => admin.start())
afterAll(() => admin.stop(new AbortController().signal))

const accepted = new Set(['as it should be', 'in lower case', 'with two spaces', 'with spaces around it'])
for (const [shape, headers] of Object.entries(lines)) {
  const status = accepted.has(shape) ? 200 : 401
  test(`D13: the API answers ${status} to a token ${shape}, says what it needs, and shows it nowhere`, async () => {
    const connection = new RawConnection(admin.address.port)
    connection.write(
      ['GET /api/v1/traces/a HTTP/1.1', 'Host: localhost', 'Connection: close', ...headers, '', ''].join(
        '\r\n',
      ),
    )
    await connection.closed
    const [top = '', ...rest] = connection.received.split('\r\n\r\n')
    expect(top.slice(9, 12)).toBe(String(status))
    expect(rest.join('')).toContain(
      status === 200
        ? '{"found":true}'
        : '{"error":"this needs the header Authorization: Bearer with the value of ADMIN_TOKEN"}',
    )
    expect([connection.received.includes('c2VjcmV0'), logged()]).toEqual([false, []])
    connection.socket.destroy()
  })
}
