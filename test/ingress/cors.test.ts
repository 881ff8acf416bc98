import { expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { answerHeaders, type CorsOptions, corsOf } from '../../src/ingress/cors.ts'
import {
  head,
  type Ingress,
  JSON_TYPE,
  oneSpan,
  PROTOBUF,
  RawConnection,
  type Request,
  send,
  serveIngress,
} from './serve.ts'

const APP = 'https://app.example.com'
const never = new AbortController().signal

function cors(options: Partial<CorsOptions> = {}) {
  return corsOf({
    allowedOrigins: [APP],
    allowedHeaders: ['Authorization', 'Content-Encoding', 'Content-Type', 'X-Request-Id'],
    maxAgeSeconds: 7200,
    ...options,
  })
}

/** What an answer says to a browser. */
function said(headers: NodeJS.Dict<string | string[]>) {
  return Object.fromEntries(
    Object.entries(headers).filter(([name]) => name === 'vary' || name.startsWith('access-control-')),
  )
}

const preflight = (origin: string, headers = 'content-type', path = '/v1/traces'): Request => ({
  method: 'OPTIONS',
  path,
  headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': headers },
})

test('D12: a preflight of an allowed origin is 204 and says what may be sent', async () => {
  await using ingress = await serveIngress({ cors: cors() })
  const { status, headers, body } = await send(
    ingress.port,
    preflight(APP, 'authorization,Content-Type, x-other'),
  )
  expect([status, body.length, headers['content-length'], said(headers)]).toEqual([
    204,
    0,
    undefined,
    {
      vary: 'Origin',
      'access-control-allow-origin': APP,
      'access-control-allow-credentials': 'true',
      'access-control-allow-methods': 'POST',
      'access-control-allow-headers': 'authorization, Content-Type',
      'access-control-max-age': '7200',
    },
  ])
})

test('D12: a preflight of another origin is 204 and allows nothing', async () => {
  await using ingress = await serveIngress({ cors: cors() })
  const { status, headers } = await send(ingress.port, preflight('https://evil.example.org'))
  expect([status, said(headers)]).toEqual([204, { vary: 'Origin' }])
})

test('D12: a preflight of a path that is not there is 204, so that the page can read the 404 that follows', async () => {
  await using ingress = await serveIngress({ cors: cors() })
  const asked = await send(ingress.port, preflight(APP, 'content-type', '/nope'))
  const sent = await send(ingress.port, { path: '/nope', headers: { origin: APP }, body: oneSpan })
  expect([asked.status, asked.headers['access-control-allow-origin']]).toEqual([204, APP])
  expect([sent.status, sent.headers['access-control-allow-origin']]).toEqual([404, APP])
})

test('D12: preflights come before the rate limit and take nothing of it, and are answered while it drains', async () => {
  await using ingress = await serveIngress({ cors: cors(), rateLimit: { perSecond: 0.001, burst: 1 } })
  const headers = { 'content-type': PROTOBUF, origin: APP }
  const release = ingress.stager.hold()
  const asked = await send(ingress.port, preflight(APP))
  const taken = send(ingress.port, { headers, body: oneSpan })
  await ingress.stager.whenAppended(1)
  const limited = await send(ingress.port, { headers, body: oneSpan })
  const askedAgain = await send(ingress.port, preflight(APP))
  const stopped = ingress.http.stop(never)
  const askedLate = await send(ingress.port, preflight(APP))
  const late = await send(ingress.port, { headers, body: oneSpan })
  release()
  const answers = [asked, await taken, limited, askedAgain, askedLate, late]
  await stopped
  expect(answers.map(({ status, headers }) => [status, headers['access-control-allow-origin']])).toEqual([
    [204, APP],
    [200, APP],
    [429, APP],
    [204, APP],
    [204, APP],
    [503, APP],
  ])
})

/** Each kind of answer: how to bring it about. */
const answers: { status: number; request?: Request; arrange?: (ingress: Ingress) => void }[] = [
  { status: 200 },
  { status: 202, arrange: (ingress) => ingress.decide({ outcome: 'drop', policy: 'drop' }) },
  { status: 400, request: { body: Buffer.from('1234') } },
  { status: 404, request: { path: '/nope' } },
  { status: 405, request: { method: 'GET' } },
  { status: 413, request: { body: Buffer.alloc(1_000_001) } },
  { status: 415, request: { headers: { 'content-type': 'text/plain' } } },
  { status: 429, arrange: (ingress) => ingress.decide({ outcome: 'reject' }) },
  {
    status: 503,
    arrange: ({ stager }) => {
      stager.failure = new Failure('outage', 'connection refused', { code: 'ECONNREFUSED' })
    },
  },
]

for (const { status, request, arrange } of answers) {
  test(`D12: a page of an allowed origin can read ${status}, Retry-After and X-Request-Id; other answers only vary`, async () => {
    await using ingress = await serveIngress({ cors: cors(), maxBodyBytes: 1_000_000 })
    arrange?.(ingress)
    const asOrigin = (origin: string | undefined) =>
      send(ingress.port, {
        body: oneSpan,
        ...request,
        headers: {
          'content-type': PROTOBUF,
          ...request?.headers,
          ...(origin === undefined ? {} : { origin }),
        },
      })
    const [allowed, other, none] = [
      await asOrigin(APP),
      await asOrigin('https://evil.example.org'),
      await asOrigin(undefined),
    ]
    expect([allowed.status, said(allowed.headers)]).toEqual([
      status,
      {
        vary: 'Origin',
        'access-control-allow-origin': APP,
        'access-control-allow-credentials': 'true',
        'access-control-expose-headers': 'Retry-After, X-Request-Id',
      },
    ])
    expect([other.status, said(other.headers)]).toEqual([status, { vary: 'Origin' }])
    expect([none.status, said(none.headers)]).toEqual([status, { vary: 'Origin' }])
  })
}

test('D12: without CORS no answer says anything to browsers, and a preflight is a plain OPTIONS', async () => {
  await using ingress = await serveIngress()
  const asked = await send(ingress.port, preflight(APP))
  const sent = await send(ingress.port, { headers: { 'content-type': PROTOBUF, origin: APP }, body: oneSpan })
  expect([asked.status, asked.headers.allow, said(asked.headers)]).toEqual([204, 'OPTIONS, POST', {}])
  expect([sent.status, said(sent.headers)]).toEqual([200, {}])
})

test('D12: an OPTIONS that is no preflight names the methods, and varies', async () => {
  await using ingress = await serveIngress({ cors: cors() })
  const { status, headers } = await send(ingress.port, { method: 'OPTIONS', headers: { origin: APP } })
  expect([status, headers.allow, headers['access-control-allow-origin'], headers.vary]).toEqual([
    204,
    'OPTIONS, POST',
    APP,
    'Origin',
  ])
})

test('D12: a browser’s whole exchange of JSON goes over one connection', async () => {
  await using ingress = await serveIngress({ cors: cors() })
  const connection = new RawConnection(ingress.port)
  connection.write(
    `OPTIONS /v1/traces HTTP/1.1\r\nHost: a\r\nOrigin: ${APP}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\r\n`,
  )
  await connection.until(/^HTTP\/1\.1 204 No Content\r\n[\s\S]*\r\n\r\n$/)
  connection.write(
    `POST /v1/traces HTTP/1.1\r\nHost: a\r\nOrigin: ${APP}\r\nContent-Type: ${JSON_TYPE}\r\nContent-Length: 2\r\n\r\n{}`,
  )
  await connection.until(
    /HTTP\/1\.1 200 OK\r\n[\s\S]*Access-Control-Allow-Origin: https:\/\/app\.example\.com\r\n/,
  )
  connection.socket.destroy()
})

test('a head that is no HTTP is answered without regard to origins', async () => {
  await using ingress = await serveIngress({ cors: cors() })
  const connection = new RawConnection(ingress.port)
  connection.write(head(`Origin: ${APP}`, `X-Long: ${'x'.repeat(20_000)}`))
  await connection.until(/^HTTP\/1\.1 431 /)
  connection.socket.destroy()
})

/** What an answer says to a page of this origin: the origin it names, and whether credentials may come with it. */
function allowedBy(allowedOrigins: string[], origin: string): [string | undefined, boolean] {
  const headers = answerHeaders(cors({ allowedOrigins }), origin)
  const at = headers.indexOf('Access-Control-Allow-Origin')
  return [at === -1 ? undefined : headers[at + 1], headers.includes('Access-Control-Allow-Credentials')]
}

test('origins are compared as browsers write them: scheme, host and port, nothing more and nothing less', () => {
  const allowed = [
    'https://App.Example.com:443',
    'http://localhost:3000',
    'http://[::1]:8080',
    'https://b.example.com',
  ]
  const origins = [
    APP,
    'http://localhost:3000',
    'http://[::1]:8080',
    'https://b.example.com',
    'http://app.example.com',
    'https://app.example.com:8443',
    'https://app.example.com.evil.org',
    'https://evil-app.example.com',
    'https://example.com',
    'http://localhost',
    'null',
    '',
  ]
  expect(origins.map((origin) => allowedBy(allowed, origin))).toEqual([
    ...origins.slice(0, 4).map((origin) => [origin, true]),
    ...origins.slice(4).map(() => [undefined, false]),
  ])
})

test('https://*.example.com allows every host below that domain, and nothing else', () => {
  const allowed = ['https://*.example.com', 'https://*.Test.example.org:8443']
  const good = [
    APP,
    'https://a.b.example.com',
    'https://x_y-1.example.com',
    'https://a.test.example.org:8443',
  ]
  const bad = [
    'https://example.com',
    'https://.example.com',
    'https://a..example.com',
    'http://app.example.com',
    'https://app.example.com:8443',
    'https://evil.org/.example.com',
    'https://evil.org#.example.com',
    'https://user@evil.org:1.example.com',
    'https://badexample.com',
    'https://app.example.com.evil.org',
    'https://a.test.example.org',
    'https://.example.com.example.com/',
  ]
  expect(good.map((origin) => allowedBy(allowed, origin))).toEqual(good.map((origin) => [origin, true]))
  expect(bad.map((origin) => allowedBy(allowed, origin))).toEqual(bad.map(() => [undefined, false]))
})

test('* lets every origin send, but credentials only come from those that are listed beside it', () => {
  const origins = [
    APP,
    'https://other.example.org',
    'null',
    'chrome-extension://abcdef',
    'http://localhost:3000',
  ]
  expect(origins.map((origin) => allowedBy(['*', APP], origin))).toEqual([
    [APP, true],
    ...origins.slice(1).map((origin) => [origin, false]),
  ])
})

test('* echoes nothing that is no origin: neither bytes beyond ASCII nor what is too long', () => {
  for (const origin of ['https://é.example.com', 'a b', '', `https://${'a'.repeat(300)}`]) {
    expect(allowedBy(['*'], origin)).toEqual([undefined, false])
  }
})

test('allowed headers: those asked for that are allowed, in any case; * allows every name; Content-Type always', async () => {
  const asked = 'Authorization, content-type,X-REQUEST-ID,x-evil, ,bad name'
  const allowed = async (allowedHeaders: string[]) => {
    await using ingress = await serveIngress({ cors: cors({ allowedHeaders }) })
    const { headers } = await send(ingress.port, preflight(APP, asked))
    return headers['access-control-allow-headers']
  }
  expect([
    await allowed(['authorization', 'X-Request-Id']),
    await allowed(['*']),
    await allowed(['x-none']),
  ]).toEqual([
    'Authorization, content-type, X-REQUEST-ID',
    'Authorization, content-type, X-REQUEST-ID, x-evil',
    'content-type',
  ])
})

test('a preflight that asks for no headers, or for none that is allowed, is told of none', async () => {
  await using ingress = await serveIngress({ cors: cors() })
  const bare = await send(ingress.port, {
    method: 'OPTIONS',
    headers: { origin: APP, 'access-control-request-method': 'POST' },
  })
  const none = await send(ingress.port, preflight(APP, 'x-other'))
  for (const { status, headers } of [bare, none]) {
    expect([status, headers['access-control-allow-headers']]).toEqual([204, undefined])
  }
})

test('what is no origin is an error of the configuration that names it', () => {
  for (const origin of [
    'https://app.example.com/path',
    'https://app.example.com:99999',
    'example.com',
    'file:///a',
  ]) {
    expect(() => cors({ allowedOrigins: [origin] })).toThrow(
      new Failure('configuration', `CORS_ALLOWED_ORIGINS: "${origin}" is no origin`),
    )
  }
})
