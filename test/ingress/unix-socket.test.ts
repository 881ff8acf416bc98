import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { chmod, mkdtemp, rename, stat, symlink } from 'node:fs/promises'
import http from 'node:http'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import { asFailure } from '../../src/foundation/failure.ts'
import { oneSpan, PROTOBUF, send, serveIngress } from './serve.ts'

let folder: string
let path: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sluice-socket-'))
  path = join(folder, 'otlp.sock')
})

/** Sends one span over the socket and answers the status. */
async function post(agent?: http.Agent): Promise<number | undefined> {
  const headers = { 'content-type': PROTOBUF, 'content-length': oneSpan.length }
  const request = http.request({
    socketPath: path,
    method: 'POST',
    path: '/v1/traces',
    headers,
    agent: agent ?? false,
  })
  request.end(oneSpan)
  const [answer] = (await once(request, 'response')) as [http.IncomingMessage]
  answer.resume()
  await once(answer, 'end')
  return answer.statusCode
}

/** Why no socket could be had at the path. */
async function refusal(): Promise<{ kind: string; message: string }> {
  const start = serveIngress({ socketPath: path })
  const { kind, message } = asFailure(
    await start.then(
      async (ingress) => {
        await ingress[Symbol.asyncDispose]()
        return new Error('it listens')
      },
      (thrown: unknown) => thrown,
    ),
  )
  return { kind, message: message.replaceAll(folder, 'FOLDER') }
}

/** A socket whose process is gone: a listening one that was renamed is not removed when it is closed. */
async function leaveSocketBehind(): Promise<void> {
  const server = createServer()
  server.listen(join(folder, 'listening.sock'))
  await once(server, 'listening')
  await rename(join(folder, 'listening.sock'), path)
  server.close()
  await once(server, 'close')
}

test('requests are taken on the socket and on the port, and the socket is removed at the stop', async () => {
  {
    await using ingress = await serveIngress({ socketPath: path })
    expect([await post(), (await send(ingress.port, { body: oneSpan })).status]).toEqual([200, 200])
    expect(ingress.stager.rows.map(({ items }) => items)).toEqual([1, 1])
    expect((await stat(path)).isSocket()).toBe(true)
  }
  expect(existsSync(path)).toBe(false)
})

test('a drain closes idle connections of the socket too', async () => {
  const agent = new http.Agent({ keepAlive: true })
  const ingress = await serveIngress({ socketPath: path })
  expect(await post(agent)).toBe(200)
  const startedMs = performance.now()
  await ingress.http.stop(new AbortController().signal)
  expect(performance.now() - startedMs).toBeLessThan(900)
  await ingress[Symbol.asyncDispose]()
  agent.destroy()
})

test('the socket of a process that is gone is replaced', async () => {
  await leaveSocketBehind()
  expect((await stat(path)).isSocket()).toBe(true)
  await using _ingress = await serveIngress({ socketPath: path })
  expect(await post()).toBe(200)
})

test('a socket that another process listens on is left alone', async () => {
  await using _ingress = await serveIngress({ socketPath: path })
  expect(await refusal()).toEqual({
    kind: 'configuration',
    message: 'cannot listen for OTLP/HTTP on HTTP_SOCKET=FOLDER/otlp.sock: another process listens on it',
  })
  expect(await post()).toBe(200)
})

test('a file that is no socket is never removed', async () => {
  writeFileSync(path, 'precious')
  const expected = {
    kind: 'configuration',
    message:
      'cannot listen for OTLP/HTTP on HTTP_SOCKET=FOLDER/otlp.sock: there is a file that is no socket, and it is left alone',
  }
  expect(await refusal()).toEqual(expected)
  expect(readFileSync(path, 'utf8')).toBe('precious')
  const target = path
  path = join(folder, 'link.sock')
  await symlink(target, path)
  expect(await refusal()).toEqual({
    ...expected,
    message: expected.message.replace('otlp.sock', 'link.sock'),
  })
  expect(readFileSync(path, 'utf8')).toBe('precious')
})

test('a folder that is not there is said to be not there', async () => {
  path = join(folder, 'nowhere', 'otlp.sock')
  expect(await refusal()).toEqual({
    kind: 'configuration',
    message:
      "cannot listen for OTLP/HTTP on HTTP_SOCKET=FOLDER/nowhere/otlp.sock: ENOENT: no such file or directory, stat 'FOLDER/nowhere'",
  })
  const parent = join(folder, 'file')
  writeFileSync(parent, '')
  path = join(parent, 'otlp.sock')
  expect((await refusal()).message).toContain('ENOTDIR')
})

test('the folder and the umask decide who may reach the socket', async () => {
  const inner = join(folder, 'private')
  mkdirSync(inner)
  await chmod(inner, 0o700)
  path = join(inner, 'otlp.sock')
  await using _ingress = await serveIngress({ socketPath: path })
  expect((await stat(path)).mode & 0o777).toBe(0o777 & ~process.umask())
})
