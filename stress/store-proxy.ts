import { once } from 'node:events'
import net from 'node:net'

/**
 * How the way to the store behaves.
 * - `open`: as if the proxy were not there.
 * - `slow`: every request waits `delayMs` before its first byte is passed on.
 * - `answers held`: requests reach the store, its answers do not come back.
 * - `requests held`: nothing reaches the store.
 * - `refused`: connections are cut, new ones at once.
 */
export type ProxyMode =
  | { readonly kind: 'open' }
  | { readonly kind: 'slow'; readonly delayMs: number }
  | { readonly kind: 'answers held' }
  | { readonly kind: 'requests held' }
  | { readonly kind: 'refused' }

const sockets = (pair: Pair) => [pair.client, pair.store]

interface Pair {
  client: net.Socket
  store: net.Socket
}

/** A TCP proxy before the store, whose behaviour can be changed at any moment. */
export class StoreProxy {
  readonly #server: net.Server
  readonly #target: { host: string; port: number }
  readonly #pairs = new Set<Pair>()
  #mode: ProxyMode = { kind: 'open' }
  #modeChanged = new AbortController()

  private constructor(target: URL) {
    this.#target = { host: target.hostname, port: Number(target.port) }
    this.#server = net.createServer((client) => this.#accept(client))
  }

  static async start(target: URL): Promise<StoreProxy> {
    const proxy = new StoreProxy(target)
    proxy.#server.listen(0, '127.0.0.1')
    await once(proxy.#server, 'listening')
    return proxy
  }

  get endpoint(): URL {
    const { port } = this.#server.address() as net.AddressInfo
    return new URL(`http://127.0.0.1:${port}`)
  }

  /** Changes the behaviour for connections that are open, too. What was held is let go unless it is held again. */
  set(mode: ProxyMode): void {
    this.#mode = mode
    if (mode.kind === 'refused') this.#cut()
    const changed = this.#modeChanged
    this.#modeChanged = new AbortController()
    changed.abort()
  }

  async stop(): Promise<void> {
    this.#cut()
    this.#modeChanged.abort()
    this.#server.close()
    await once(this.#server, 'close')
  }

  #cut(): void {
    for (const pair of this.#pairs) for (const socket of sockets(pair)) socket.destroy()
  }

  #accept(client: net.Socket): void {
    if (this.#mode.kind === 'refused') {
      client.destroy()
      return
    }
    const store = net.connect({ ...this.#target, noDelay: true })
    const pair = { client, store }
    this.#pairs.add(pair)
    client.setNoDelay(true)
    for (const socket of sockets(pair)) {
      socket.on('error', () => {
        // The other side is told by `close`, which always follows.
      })
      socket.on('close', () => {
        this.#pairs.delete(pair)
        for (const other of sockets(pair)) other.destroy()
      })
    }
    this.#pass(client, store, 'requests held')
    this.#pass(store, client, 'answers held')
  }

  #pass(from: net.Socket, to: net.Socket, heldBy: ProxyMode['kind']): void {
    let delayedUntilMs = 0
    let lastMs = 0
    const work = async (chunk: Buffer): Promise<void> => {
      const mode = this.#mode
      if (mode.kind === 'slow' && heldBy === 'requests held') {
        // A pause between chunks begins a new request, which is delayed again.
        const nowMs = performance.now()
        if (nowMs - lastMs > 5 && nowMs > delayedUntilMs) delayedUntilMs = nowMs + mode.delayMs
        await this.#pause(delayedUntilMs - nowMs)
        lastMs = performance.now()
      }
      while (this.#mode.kind === heldBy && !to.destroyed) await this.#pause(Number.POSITIVE_INFINITY)
      if (to.destroyed) return
      if (!to.write(chunk)) await Promise.race([once(to, 'drain'), once(to, 'close')])
    }
    from.on('data', (chunk: Buffer) => {
      from.pause()
      work(chunk).then(
        () => from.resume(),
        () => from.destroy(),
      )
    })
  }

  /** Ends after `ms` or when the mode changes. */
  #pause(ms: number): Promise<void> {
    if (ms <= 0) return Promise.resolve()
    const { signal } = this.#modeChanged
    return new Promise((resolve) => {
      const timer = Number.isFinite(ms) ? setTimeout(done, ms) : undefined
      function done() {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        resolve()
      }
      signal.addEventListener('abort', done)
    })
  }
}
