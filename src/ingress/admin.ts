import { createHash, timingSafeEqual } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { type Context, Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import type { Registry } from 'prom-client'
import type { Clock } from '../foundation/clock.ts'
import { asFailure } from '../foundation/failure.ts'
import type { Service } from '../foundation/service.ts'
import type { Log } from '../telemetry/log.ts'
import { addressOf, closeServer, type ListeningAddress, listen } from './listening.ts'

/** One question asked of a part: whether it works, and if not, a sentence that says what is wrong. */
export interface Check {
  readonly ok: boolean
  readonly message?: string
}

/** Whether a process is well: all of its checks, and what follows from them. */
export interface Health {
  readonly ok: boolean
  /** By the name of the part: `database`, `schema`, `store`. */
  readonly checks: Readonly<Record<string, Check>>
}

/** What an API handler is asked. */
export interface ApiRequest {
  /** The named segments of the path, decoded. */
  readonly params: Readonly<Record<string, string>>
  readonly query: Readonly<Record<string, string>>
  /** What a `POST` brought, read as JSON; undefined for a `GET`. */
  readonly body: unknown
}

/** What an API handler answers: `body` becomes JSON unless it is text that already is, or a file. */
export interface ApiAnswer {
  readonly status: 200 | 400 | 404 | 503
  readonly body: unknown
}

/** Bytes to be kept under this name by whoever asks. */
export class ApiFile {
  readonly name: string
  readonly contentType: string
  readonly bytes: Buffer

  constructor(name: string, contentType: string, bytes: Buffer) {
    this.name = name
    this.contentType = contentType
    this.bytes = bytes
  }
}

/** Answers one request of the API; a rejection is logged and answered 500. */
export type ApiHandler = (request: ApiRequest) => Promise<ApiAnswer>

/** What the admin server needs. */
export interface AdminOptions {
  host: string
  /** 0 for any free port; `address` tells which. */
  port: number
  token: string | undefined
  /** Whether this process can do its work. Asked for each `GET /health/ready`; must answer soon. */
  ready: () => Promise<Health>
  /** The same with everything that does not count for readiness, the object store above all. */
  health: () => Promise<Health>
  /** `GET` handlers under `/api/v1`, by path: `{ '/traces/:id': … }`. */
  api: Readonly<Record<string, ApiHandler>>
  /** The same for `POST`: what changes something. */
  posts: Readonly<Record<string, ApiHandler>>
  /** What is shown at `/metrics`. Asked for each time; must answer soon. */
  counts: () => Promise<Registry>
  log: Log
  clock: Clock
}

/** A list of some ten thousand ids. */
const BODY_BYTES_MAX = 1024 * 1024

/** Whether a listener on this host can be reached from this machine only. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host)
}

/**
 * The port for people and their tools: health, metrics and the API. Without a token, a port that can be
 * reached from other machines serves health and metrics only.
 */
export class AdminServer implements Service {
  readonly name = 'admin'
  readonly #options: AdminOptions
  #server: Server | undefined

  constructor(options: AdminOptions) {
    this.#options = options
  }

  /** Where it listens. */
  get address(): ListeningAddress {
    return addressOf(this.#server)
  }

  /**
   * Resolves when it listens.
   *
   * @throws Failure `configuration` when the address cannot be had.
   */
  start(): Promise<void> {
    const { host, port } = this.#options
    const listener = getRequestListener(adminApp(this.#options).fetch, {
      hostname: 'localhost',
      overrideGlobalObjects: false,
      errorHandler: () =>
        Response.json({ error: 'the request target and Host make no URL' }, { status: 400 }),
    })
    const server = createServer((incoming, outgoing) => {
      listener(incoming, outgoing).catch((error: unknown) => {
        this.#options.log.error('admin_failed', { reason: 'bug', error })
        outgoing.destroy()
      })
    })
    this.#server = server
    return listen(server, 'administration', { host, port }, (error) => {
      this.#options.log.error('admin_failed', { reason: 'listener', error })
    })
  }

  /** Answers what is in hand, then closes. It is the last to go: until then it says that the rest is stopping. */
  async stop(giveUp: AbortSignal): Promise<void> {
    const server = this.#server
    if (server === undefined || !server.listening) return
    await closeServer(server, this.#options.clock, giveUp, () => server.closeAllConnections())
  }
}

/** The admin routes, apart from the socket that they are served on. */
export function adminApp(options: Omit<AdminOptions, 'port' | 'clock'>): Hono {
  const { host, token, ready, health, api, posts, counts, log } = options
  const app = new Hono()

  const report = async (c: Context, ask: () => Promise<Health>) => {
    const answer = await ask()
    return c.json({ status: answer.ok ? 'ok' : 'unavailable', checks: answer.checks }, answer.ok ? 200 : 503)
  }
  // Live means only that the event loop turns: restarting a process because its database is away helps nobody.
  app.get('/health/live', (c) => c.json({ status: 'ok', checks: {} }))
  app.get('/health/ready', (c) => report(c, ready))
  app.get('/health', (c) => report(c, health))
  app.get('/metrics', async (c) => {
    const registry = await counts()
    return c.body(await registry.metrics(), 200, { 'Content-Type': registry.contentType })
  })

  app.use('/api/*', async (c, next) => {
    if (token === undefined) {
      if (isLoopback(host)) return next()
      return c.json({ error: 'set ADMIN_TOKEN to use the API on a port that other machines can reach' }, 403)
    }
    if (isBearer(c.req.header('authorization'), token)) return next()
    return c.json(
      { error: 'this needs the header Authorization: Bearer with the value of ADMIN_TOKEN' },
      401,
      {
        'WWW-Authenticate': 'Bearer',
      },
    )
  })
  const answer = async (c: Context, handler: ApiHandler, given: unknown) => {
    const { status, body } = await handler({ params: c.req.param(), query: c.req.query(), body: given })
    if (body instanceof ApiFile) {
      return c.body(new Uint8Array(body.bytes), status, {
        'Content-Type': body.contentType,
        'Content-Disposition': `attachment; filename="${body.name}"`,
      })
    }
    const text = typeof body === 'string' ? body : JSON.stringify(body)
    return c.body(text, status, { 'Content-Type': 'application/json' })
  }
  for (const [path, handler] of Object.entries(api)) {
    app.get(`/api/v1${path}`, (c) => answer(c, handler, undefined))
  }
  const bounded = bodyLimit({
    maxSize: BODY_BYTES_MAX,
    onError: (c) => c.json({ error: `the body may have at most ${BODY_BYTES_MAX} bytes` }, 413),
  })
  for (const [path, handler] of Object.entries(posts)) {
    app.post(`/api/v1${path}`, bounded, async (c) => {
      // Any page in a browser may send a form or text to this machine, but for JSON it would have to ask us first.
      if (!/^application\/json *(;|$)/i.test(c.req.header('content-type') ?? '')) {
        return c.json({ error: 'this needs the header Content-Type: application/json' }, 415)
      }
      // A name that somebody else points at this machine makes a page of theirs one of ours.
      if (token === undefined && !isLoopback(new URL(c.req.url).hostname.replaceAll(/[[\]]/g, ''))) {
        return c.json(
          { error: 'without ADMIN_TOKEN this is for requests to localhost or 127.0.0.1 by that name' },
          403,
        )
      }
      const text = await c.req.text()
      let given: unknown
      try {
        given = JSON.parse(text)
      } catch (thrown) {
        return c.json({ error: `the body is not JSON: ${asFailure(thrown).message}` }, 400)
      }
      return await answer(c, handler, given)
    })
  }

  app.notFound((c) => c.json({ error: `there is nothing at ${c.req.path}` }, 404))
  app.onError((error, c) => {
    log.error('admin_failed', { reason: 'bug', path: c.req.path, error })
    return c.json({ error: 'the request could not be handled' }, 500)
  })
  return app
}

/** Compares in a time that does not depend on where two tokens differ, nor on their lengths. */
function isBearer(header: string | undefined, token: string): boolean {
  const given = /^Bearer +(.+)$/i.exec(header ?? '')?.[1]
  if (given === undefined) return false
  const digest = (text: string) => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(given), digest(token))
}
