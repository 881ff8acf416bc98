import { expect, test } from 'vitest'
import { systemClock } from '../../src/foundation/clock.ts'
import {
  type AdminOptions,
  AdminServer,
  ApiFile,
  adminApp,
  type Health,
  isLoopback,
} from '../../src/ingress/admin.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { collectingLog, RawConnection, send } from './serve.ts'

const well: Health = { ok: true, checks: { database: { ok: true } } }

function admin(options: Partial<Omit<AdminOptions, 'port' | 'clock'>> = {}) {
  const { log, lines } = collectingLog()
  const app = adminApp({
    host: '127.0.0.1',
    token: undefined,
    ready: async () => well,
    health: async () => well,
    api: {
      '/traces/:id': async ({ params, query }) => ({ status: 200, body: { params, query } }),
      '/file': async () => ({
        status: 200,
        body: new ApiFile('17.binpb', 'application/x-protobuf', Buffer.from([0, 255])),
      }),
      '/text': async () => ({ status: 404, body: '{"error":"none"}' }),
      '/broken': () => Promise.reject(new Error('broken')),
    },
    posts: { '/things/:id': async ({ params, body }) => ({ status: 200, body: { params, body } }) },
    counts: async () => createMetrics().registry,
    log,
    ...options,
  })
  const get = async (path: string, authorization?: string) => {
    const response = await app.request(
      path,
      authorization === undefined ? {} : { headers: { authorization } },
    )
    return [response.status, await response.json()]
  }
  return { app, get, lines }
}

test('live is always 200, ready and health say what their checks say', async () => {
  const ill: Health = { ok: false, checks: { database: { ok: false, message: 'connection refused' } } }
  const storeAway: Health = {
    ok: false,
    checks: { database: { ok: true }, store: { ok: false, message: 'no answer in 5 s' } },
  }
  const sick = admin({ ready: async () => ill, health: async () => ill })
  const half = admin({ health: async () => storeAway })
  expect([
    await sick.get('/health/live'),
    await sick.get('/health/ready'),
    await half.get('/health/ready'),
    await half.get('/health'),
  ]).toEqual([
    [200, { status: 'ok', checks: {} }],
    [503, { status: 'unavailable', checks: ill.checks }],
    [200, { status: 'ok', checks: well.checks }],
    [503, { status: 'unavailable', checks: storeAway.checks }],
  ])
})

test('metrics are served in the format that Prometheus reads', async () => {
  const { app } = admin()
  const response = await app.request('/metrics')
  expect([response.status, response.headers.get('content-type')]).toEqual([
    200,
    'text/plain; version=0.0.4; charset=utf-8',
  ])
  expect((await response.text()).split('\n')).toContain('# TYPE sluice_requests_total counter')
})

test('API handlers are given the parts of the path and the query', async () => {
  const { get } = admin()
  expect([await get('/api/v1/traces/ab%20c?limit=2'), await get('/api/v1/text')]).toEqual([
    [200, { params: { id: 'ab c' }, query: { limit: '2' } }],
    [404, { error: 'none' }],
  ])
})

test('a file comes byte for byte, under its name', async () => {
  const response = await admin().app.request('/api/v1/file')
  expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/x-protobuf'])
  expect(response.headers.get('content-disposition')).toBe('attachment; filename="17.binpb"')
  expect(Buffer.from(await response.arrayBuffer())).toEqual(Buffer.from([0, 255]))
})

/** A `POST` as a browser or a tool may send it, to an admin port on loopback without a token. */
async function posted(
  { url = 'http://localhost', type, body = '{"a":1}', token }: Record<string, string>,
  authorization?: string,
): Promise<[number, Record<string, unknown>]> {
  const { app } = admin({ token })
  const headers = {
    ...(type === undefined ? {} : { 'content-type': type }),
    ...(authorization === undefined ? {} : { authorization }),
  }
  const response = await app.request(`${url}/api/v1/things/7`, { method: 'POST', headers, body })
  return [response.status, (await response.json()) as Record<string, unknown>]
}

test('a POST is given its JSON and its path', async () => {
  const wanted = { params: { id: '7' }, body: { a: 1 } }
  for (const type of ['application/json', 'Application/JSON; charset=utf-8']) {
    expect(await posted({ type })).toEqual([200, wanted])
  }
  expect((await admin().get('/api/v1/things/7'))[0]).toBe(404)
  expect(await posted({ type: 'application/json', body: '{' })).toEqual([
    400,
    { error: expect.stringContaining('not JSON') },
  ])
  expect((await posted({ type: 'application/json', body: `"${'x'.repeat(2 ** 20)}"` }))[0]).toBe(413)
})

test('a web page cannot make a browser change anything: neither with what needs no question, nor under another name', async () => {
  const statuses = []
  // What a page may send to another origin without a preflight.
  for (const type of [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data',
    'text/json',
    '',
  ]) {
    statuses.push((await posted({ type }))[0])
  }
  expect(statuses).toEqual([415, 415, 415, 415, 415])
  const { app } = admin()
  const preflight = await app.request('/api/v1/things/7', {
    method: 'OPTIONS',
    headers: { origin: 'https://example.org', 'access-control-request-method': 'POST' },
  })
  expect(preflight.headers.get('access-control-allow-origin')).toBeNull()
  const type = 'application/json'
  const names = ['http://127.0.0.1:8080', 'http://[::1]:8080', 'http://localhost', 'http://evil.example:8080']
  const byName = await Promise.all(names.map((url) => posted({ url, type })))
  expect(byName.map(([status]) => status)).toEqual([200, 200, 200, 403])
})

test('with a token a POST needs it, and then any name will do', async () => {
  const request = { url: 'http://sluice.example', type: 'application/json', token: 'secret' }
  expect((await posted(request))[0]).toBe(401)
  expect((await posted(request, 'Bearer wrong'))[0]).toBe(401)
  expect((await posted(request, 'Bearer secret'))[0]).toBe(200)
})

test('without a token the API is served on loopback only; health and metrics everywhere', async () => {
  const statuses = []
  for (const host of ['127.0.0.1', '0.0.0.0']) {
    const { app } = admin({ host })
    for (const path of ['/api/v1/text', '/api/v1/nope', '/health/live', '/metrics']) {
      statuses.push([host, path, (await app.request(path)).status])
    }
  }
  expect(statuses).toEqual([
    ['127.0.0.1', '/api/v1/text', 404],
    ['127.0.0.1', '/api/v1/nope', 404],
    ['127.0.0.1', '/health/live', 200],
    ['127.0.0.1', '/metrics', 200],
    ['0.0.0.0', '/api/v1/text', 403],
    ['0.0.0.0', '/api/v1/nope', 403],
    ['0.0.0.0', '/health/live', 200],
    ['0.0.0.0', '/metrics', 200],
  ])
})

test('with a token the API needs exactly that token, wherever it listens', async () => {
  const statuses = []
  for (const host of ['127.0.0.1', '0.0.0.0']) {
    const { get } = admin({ host, token: 'secret==' })
    for (const header of [
      undefined,
      '',
      'secret==',
      'Basic secret==',
      'Bearer',
      'Bearer secret=',
      'Bearer secret== ',
      'Bearer secret==',
      'bearer secret==',
    ]) {
      statuses.push((await get('/api/v1/traces/a', header))[0])
    }
  }
  const expected = [401, 401, 401, 401, 401, 401, 200, 200, 200]
  expect(statuses).toEqual([...expected, ...expected])
})

test('a handler that throws is 500 and one line in the log', async () => {
  const { get, lines } = admin()
  expect(await get('/api/v1/broken')).toEqual([500, { error: 'the request could not be handled' }])
  expect(lines().map(({ event, path, level }) => [event, path, level])).toEqual([
    ['admin_failed', '/api/v1/broken', 'error'],
  ])
})

test('only addresses of this machine are loopback', () => {
  const hosts = [
    '127.0.0.1',
    '127.1.2.3',
    '::1',
    'localhost',
    '0.0.0.0',
    '::',
    '10.0.0.1',
    '127.0.0.1.example.org',
    '',
  ]
  expect(hosts.map(isLoopback)).toEqual([true, true, true, true, false, false, false, false, false])
})

test('the server listens, answers over a socket, and stops', async () => {
  const { log } = collectingLog()
  const server = new AdminServer({
    host: '127.0.0.1',
    port: 0,
    token: undefined,
    ready: async () => well,
    health: async () => well,
    api: {},
    posts: {},
    counts: async () => createMetrics().registry,
    log,
    clock: systemClock,
  })
  await server.start()
  const { port } = server.address
  const answers = [
    await send(port, { method: 'GET', path: '/health/live', headers: {} }),
    await send(port, { method: 'HEAD', path: '/health/ready', headers: {} }),
    await send(port, { method: 'GET', path: '/', headers: { host: 'a b' } }),
  ]
  expect(answers.map(({ status }) => status)).toEqual([200, 200, 400])
  const silent = new RawConnection(port)
  await silent.opened
  await server.stop(new AbortController().signal)
  await silent.closed
  await server.stop(new AbortController().signal)
  await expect(send(port, { method: 'GET', path: '/health/live', headers: {} })).rejects.toMatchObject({
    code: 'ECONNREFUSED',
  })
})
