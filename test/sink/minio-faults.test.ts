import type net from 'node:net'
import { afterEach, describe, expect, test, vi } from 'vitest'
import type { FailureKind } from '../../src/foundation/failure.ts'
import { openMinioStore } from '../../src/sink/minio-store.ts'
import { checksumOf } from '../../src/sink/object-key.ts'
import type { ObjectStore } from '../../src/sink/object-store.ts'
import { freePort } from '../support/free-port.ts'
import { all, failureOf } from './conformance.ts'
import { errorDocument, fakeS3, rawS3 } from './fake-s3.ts'

const opened: ObjectStore[] = []
afterEach(async () => {
  vi.restoreAllMocks()
  await Promise.all(opened.splice(0).map((store) => store.close()))
})

function open(endpoint: URL, timeoutMs = 20_000): ObjectStore {
  const store = openMinioStore({
    endpoint,
    bucket: 'telemetry',
    region: undefined,
    accessKey: 'key',
    secretKey: 'secret',
    putTimeoutMs: timeoutMs,
    requestTimeoutMs: timeoutMs,
    socketsMax: 4,
  })
  opened.push(store)
  return store
}

const body = Buffer.alloc(100_000, 'x')
const putTo = (store: ObjectStore, key = 'a/b') => store.put(key, body, checksumOf(body))

describe('what the store answers', () => {
  test.each<[FailureKind, number, string]>([
    ['outage', 503, 'SlowDown'],
    ['outage', 503, 'ServiceUnavailable'],
    ['outage', 500, 'InternalError'],
    ['outage', 502, ''],
    ['outage', 504, ''],
    ['outage', 520, ''],
    ['outage', 429, ''],
    ['outage', 429, 'TooManyRequests'],
    ['outage', 499, ''],
    ['outage', 408, 'RequestTimeout'],
    ['outage', 400, 'RequestTimeout'],
    ['outage', 400, 'IncompleteBody'],
    ['outage', 400, 'XAmzContentSHA256Mismatch'],
    ['outage', 403, 'RequestTimeTooSkewed'],
    ['outage', 404, 'NoSuchBucket'],
    ['outage', 507, 'XMinioStorageFull'],
    ['outage', 409, 'ConditionalRequestConflict'],
    ['outage', 409, 'OperationAborted'],
    ['outage', 503, 'XMinioServerNotInitialized'],
    ['outage', 503, 'XMinioBackendDown'],
    ['outage', 503, 'SlowDownWrite'],
    ['outage', 400, 'ThrottlingException'],
    ['outage', 307, 'TemporaryRedirect'],
    ['configuration', 403, 'InvalidAccessKeyId'],
    ['configuration', 403, 'SignatureDoesNotMatch'],
    ['configuration', 403, 'AccessDenied'],
    ['configuration', 403, ''],
    ['configuration', 401, ''],
    ['configuration', 400, 'AuthorizationHeaderMalformed'],
    ['configuration', 301, 'PermanentRedirect'],
    ['configuration', 501, 'NotImplemented'],
    ['data', 400, 'EntityTooLarge'],
    ['data', 413, ''],
    ['configuration', 400, 'KeyTooLongError'],
    ['configuration', 400, 'ExpiredToken'],
    ['configuration', 400, 'KMS.DisabledException'],
    ['configuration', 403, 'AllAccessDisabled'],
    ['configuration', 405, 'MethodNotAllowed'],
    ['configuration', 400, 'XMinioInvalidObjectName'],
    ['bug', 400, 'NobodyKnowsThisCode'],
    ['bug', 418, ''],
  ])('is classified as %s: %i %s', async (kind, status, code) => {
    await using server = await fakeS3((_, response) => {
      response.writeHead(status).end(code === '' ? '<html>a proxy says no</html>' : errorDocument(code))
    })
    const failure = await failureOf(putTo(open(server.endpoint)))
    expect(failure).toMatchObject({ kind, code: code === '' ? `Http${status}` : code })
    expect(failure.message).toMatch(`put a/b: ${status} `)
    expect(typeof failure.fix).toBe(kind === 'configuration' ? 'string' : 'undefined')
  })

  test('H1: SlowDown 300 times over is 300 outages with their code, on one socket, and nothing on stderr', async () => {
    const printed = [
      vi.spyOn(process.stderr, 'write').mockReturnValue(true),
      vi.spyOn(process.stdout, 'write').mockReturnValue(true),
      ...(['warn', 'error', 'log'] as const).map((name) => vi.spyOn(console, name).mockReturnValue()),
    ]
    await using server = await fakeS3((_, response) => response.writeHead(503).end(errorDocument('SlowDown')))
    const store = open(server.endpoint)
    const outcomes = new Set<string>()
    for (let tries = 0; tries < 300; tries += 1) {
      const { kind, code, message } = await failureOf(putTo(store))
      outcomes.add(`${kind} ${code} ${message}`)
    }
    expect([...outcomes]).toEqual(['outage SlowDown put a/b: 503 SlowDown: this is SlowDown'])
    expect(server.accepted()).toBe(1)
    expect(printed.map((spy) => spy.mock.calls)).toEqual([[], [], [], [], []])
  })

  test('a hundred refused puts at once share four sockets', async () => {
    await using server = await fakeS3((_, response) =>
      response.writeHead(500).end(errorDocument('InternalError')),
    )
    const store = open(server.endpoint)
    const puts = Array.from({ length: 100 }, (_, number) => failureOf(putTo(store, `a/${number}`)))
    const kinds = new Set((await Promise.all(puts)).map(({ kind }) => kind))
    expect([...kinds]).toEqual(['outage'])
    expect(server.accepted()).toBeLessThanOrEqual(4)
    expect(server.connections.size).toBeLessThanOrEqual(4)
  })

  test('an answer given before the body was read leaves no socket that waits for it', async () => {
    await using server = await rawS3((socket) => {
      socket.pause()
      const text = errorDocument('SlowDown')
      socket.write(`HTTP/1.1 503 Slow Down\r\nContent-Length: ${text.length}\r\n\r\n${text}`)
      // Only a socket that is read from notices that the other end has gone.
      socket.once('drain', () => socket.resume())
      setImmediate(() => socket.resume())
    })
    const large = Buffer.alloc(32 * 1024 * 1024)
    const put = open(server.endpoint).put('a/b', large, checksumOf(large))
    expect(await failureOf(put)).toMatchObject({ kind: 'outage' })
    await server.allClosed()
  })

  test('an error document without an end is cut off', async () => {
    await using server = await fakeS3((_, response) => {
      response.writeHead(503)
      const more = () => {
        while (!response.destroyed && response.write('x'.repeat(10_000)));
        response.once('drain', more)
      }
      more()
    })
    expect(await failureOf(putTo(open(server.endpoint)))).toMatchObject({ kind: 'outage', code: 'Http503' })
    await server.allClosed()
  })

  test('a key that was taken and then is not is tried again later', async () => {
    await using server = await fakeS3((request, response) => {
      response.writeHead(request.method === 'PUT' ? 412 : 404).end()
    })
    expect(await failureOf(putTo(open(server.endpoint)))).toMatchObject({
      kind: 'outage',
      code: 'PreconditionFailed',
    })
  })

  test('the right size without our checksum is another object', async () => {
    await using server = await fakeS3((request, response) => {
      if (request.method === 'PUT') response.writeHead(412).end()
      else response.writeHead(200, { 'content-length': body.length }).end()
    })
    expect(await failureOf(putTo(open(server.endpoint)))).toMatchObject({
      kind: 'data',
      code: 'PreconditionFailed',
    })
  })

  test('H6, H10: a put says what it is and nothing about whose', async () => {
    const seen: Record<string, unknown>[] = []
    await using server = await fakeS3((request, response) => {
      const { authorization, 'x-amz-date': date, 'user-agent': agent, host, ...headers } = request.headers
      seen.push({ url: request.url, ...headers })
      response.writeHead(200).end()
    })
    const store = open(server.endpoint)
    const sha256 = checksumOf(body).slice(7)
    await putTo(store, 'logs/tenant=a/x.binpb.gz')
    await putTo(store, 'logs/tenant=a/x.binpb')
    const headers = {
      'content-length': '100000',
      'if-none-match': '*',
      'x-amz-content-sha256': sha256,
      'x-amz-meta-sluice-sha256': sha256,
      connection: 'keep-alive',
    }
    expect(seen).toEqual([
      { url: '/telemetry/logs/tenant%3Da/x.binpb.gz', 'content-type': 'application/gzip', ...headers },
      { url: '/telemetry/logs/tenant%3Da/x.binpb', 'content-type': 'application/x-protobuf', ...headers },
    ])
  })

  test('a listing that turns in a circle ends with an error', async () => {
    await using server = await fakeS3((_, response) => {
      response.end(
        '<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>7</NextContinuationToken>' +
          '<Contents><Key>a</Key><Size>1</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>' +
          '</ListBucketResult>',
      )
    })
    expect(await failureOf(all(open(server.endpoint).list('')))).toMatchObject({ kind: 'bug' })
  })
})

describe('a server that hangs', () => {
  const waysToHang: [string, (socket: net.Socket) => void][] = [
    ['never answers', (socket) => socket.resume()],
    ['does not read', (socket) => socket.pause()],
    ['sends half a status line', (socket) => socket.resume().write('HTTP/1.1 20')],
    [
      'sends its headers only',
      (socket) => socket.resume().write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n'),
    ],
    [
      'stops in the middle of its answer',
      (socket) => socket.resume().write('HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nhalf'),
    ],
    [
      'stops in the middle of an error',
      (socket) => socket.resume().write('HTTP/1.1 503 Slow Down\r\nContent-Length: 900\r\n\r\n<Error>'),
    ],
  ]
  const calls: [string, (store: ObjectStore) => Promise<unknown>][] = [
    ['put', (store) => putTo(store)],
    ['get', (store) => store.get('a/b')],
    ['list', (store) => all(store.list(''))],
    ['remove', (store) => store.remove('a/b')],
  ]
  const cases = waysToHang.flatMap(([way, hang]) => calls.map(([name, call]) => ({ way, hang, name, call })))

  test.each(cases)(
    'and $way is an outage of $name when the deadline passes, and its socket is closed',
    async ({ hang, call }) => {
      const hanging: net.Socket[] = []
      await using server = await rawS3((socket) => {
        hanging.push(socket)
        hang(socket)
      })
      const startedMs = performance.now()
      const failure = await failureOf(call(open(server.endpoint, 120)))
      expect(failure).toMatchObject({ kind: 'outage', code: 'ETIMEDOUT' })
      expect(performance.now() - startedMs).toBeLessThan(2000)
      for (const socket of hanging) socket.resume()
      await server.allClosed()
    },
  )

  test('keeps those that wait for its sockets no longer than their own deadline', async () => {
    await using server = await rawS3((socket) => socket.resume())
    const store = open(server.endpoint, 150)
    const failures = await Promise.all(
      Array.from({ length: 12 }, (_, n) => failureOf(putTo(store, `a/${n}`))),
    )
    expect(failures.map(({ kind }) => kind)).toEqual(Array(12).fill('outage'))
    await server.allClosed()
  })

  test('and a signal that aborts ends the put and closes its socket', async () => {
    const stop = new AbortController()
    await using server = await rawS3((socket) => {
      socket.resume()
      stop.abort(new Error('shutting down'))
    })
    const put = open(server.endpoint).put('a/b', body, checksumOf(body), stop.signal)
    expect(await failureOf(put)).toMatchObject({ kind: 'outage', code: 'ABORT_ERR' })
    await server.allClosed()
  })
})

describe('a connection', () => {
  test('that is refused, reset or cut off in the middle of an answer is an outage', async () => {
    const nobody = new URL(`http://127.0.0.1:${await freePort()}`)
    expect(await failureOf(putTo(open(nobody)))).toMatchObject({ kind: 'outage', code: 'ECONNREFUSED' })
    await using resetting = await rawS3((socket) => socket.resetAndDestroy())
    expect(await failureOf(putTo(open(resetting.endpoint)))).toMatchObject({ kind: 'outage' })
    await using cutting = await rawS3((socket) => {
      socket.end('HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nhalf of it')
    })
    expect(await failureOf(open(cutting.endpoint).get('a/b'))).toMatchObject({
      kind: 'outage',
      code: 'ECONNRESET',
    })
  })

  test('to something that is not HTTP is an outage, and to one without TLS under https a configuration', async () => {
    await using server = await rawS3((socket) => socket.end('220 mail.example ESMTP\r\n'))
    expect(await failureOf(putTo(open(server.endpoint)))).toMatchObject({ kind: 'outage' })
    await using plain = await fakeS3((_, response) => response.end())
    const https = new URL(plain.endpoint.href.replace('http:', 'https:'))
    expect(await failureOf(putTo(open(https)))).toMatchObject({ kind: 'configuration' })
  })

  test('to a name that does not exist is an outage', async () => {
    expect(await failureOf(putTo(open(new URL('http://nobody.invalid:9000'))))).toMatchObject({
      kind: 'outage',
    })
  })
})
