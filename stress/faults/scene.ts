import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { freePort } from '../../test/support/free-port.ts'
import { type GeneratorOptions, generateRequest, indexOfMarker } from '../generator.ts'
import { Ledger } from '../ledger.ts'
import type { Ingress, Machine, Stage } from '../machine.ts'
import { seededRandom } from '../seeded-random.ts'
import { Sender } from '../sender.ts'
import type { SluiceProcess } from '../sluice-process.ts'
import { Ground, type GroundWishes } from './ground.ts'
import { PostgresAnswers } from './postgres-answers.ts'
import { FaultProxy } from './proxy.ts'

/** Short, so that what takes over comes within a scenario. */
export const LEASE_SECONDS = 3
const settingsOfScene: Readonly<Record<string, string>> = {
  LEASE_SECONDS: String(LEASE_SECONDS),
  RETRY_BASE_MS: '100',
  RETRY_MAX_MS: '1000',
  CIRCUIT_RESET_SECONDS: '1',
  BATCH_FLUSH_INTERVAL_MS: '100',
  // A start takes half as much CPU, and a run starts hundreds of processes.
  NODE_COMPILE_CACHE: path.join(import.meta.dirname, '../../node_modules/.cache/sluice-stress'),
}
const requestsPerSecond = 60
const lanes = 12
const itemsMax = 20

export type Role = 'ingress' | 'worker'

/** Two ingresses and two workers apart, a proxy before the database and one before the store, under a load that goes on. */
export class Scene {
  readonly machine: Machine
  readonly stage: Stage
  readonly ground: Ground
  readonly ledger = new Ledger()
  /** Between the processes and PostgreSQL; `stage.proxy` stands before the store. */
  readonly databaseProxy: FaultProxy
  /** Ends of processes that somebody brought about, whatever their kind. */
  kills = 0
  readonly #settings: Readonly<Record<string, string>>
  readonly #ingresses: { process: SluiceProcess; readonly url: URL; readonly port: number }[] = []
  readonly #workers: SluiceProcess[] = []
  readonly #generator: GeneratorOptions
  readonly #loadOver = new AbortController()
  #load: Promise<unknown> = Promise.resolve()

  private constructor(of: {
    machine: Machine
    stage: Stage
    ground: Ground
    databaseProxy: FaultProxy
    generator: GeneratorOptions
    settings: Readonly<Record<string, string>>
    databaseTls: boolean
  }) {
    this.machine = of.machine
    this.stage = of.stage
    this.ground = of.ground
    this.databaseProxy = of.databaseProxy
    this.#generator = of.generator
    const databaseUrl = new URL(of.stage.databaseUrl)
    databaseUrl.host = of.databaseProxy.endpoint.host
    if (of.databaseTls) databaseUrl.searchParams.set('sslmode', 'require')
    this.#settings = {
      ...settingsOfScene,
      ...of.ground.clock?.environment,
      DATABASE_URL: databaseUrl.href,
      ...of.settings,
    }
  }

  /** Starts everything, and the load. */
  static async set(
    machine: Machine,
    name: string,
    {
      seed,
      settings = {},
      databaseTls = false,
      ground: wishes = {},
    }: {
      seed: number
      settings?: Readonly<Record<string, string>> | undefined
      databaseTls?: boolean
      ground?: GroundWishes | undefined
    },
  ): Promise<Scene> {
    const ground = await Ground.lay(machine, wishes)
    const stage = await machine.stage(name, seed, ground.stage).catch(async (error: unknown) => {
      await ground.clear()
      throw error
    })
    const { hostname: host, port } = new URL(stage.databaseUrl)
    const databaseProxy = await FaultProxy.start({
      target: { host, port: Number(port) },
      random: seededRandom(seed + 1),
      watch: () => new PostgresAnswers(),
    })
    const generator = { seed, run: name.replaceAll('-', '').slice(0, 11), itemsMax }
    const scene = new Scene({ machine, stage, ground, databaseProxy, generator, settings, databaseTls })
    try {
      await Promise.all([
        scene.#startIngress(0),
        scene.#startIngress(1),
        scene.#startWorker(0),
        scene.#startWorker(1),
      ])
    } catch (error) {
      await scene.close()
      throw error
    }
    await ground.loadBegins()
    scene.#load = scene.#send()
    return scene
  }

  get ingresses(): readonly Ingress[] {
    return this.#ingresses
  }

  get workers(): readonly SluiceProcess[] {
    return this.#workers
  }

  process(role: Role, place: number): SluiceProcess {
    const found = role === 'ingress' ? this.#ingresses[place]?.process : this.#workers[place]
    if (found === undefined) throw new Error(`there is no ${role} ${place}`)
    return found
  }

  /**
   * kill -9.
   *
   * @throws Error with a sentence when the process had ended by itself before, which the kill would hide.
   */
  async kill(role: Role, place: number): Promise<void> {
    const victim = this.process(role, place)
    if (victim.hasExited)
      throw new Error(
        `${victim.name} ended by itself with ${victim.exit}. Its last words:\n${victim.lastWords()}`,
      )
    this.kills++
    await victim.kill()
  }

  /** Starts another process in its place: on the same port, with the same settings and those given. */
  async start(
    role: Role,
    place: number,
    settings: Readonly<Record<string, string>> = {},
  ): Promise<SluiceProcess> {
    await (role === 'ingress' ? this.#startIngress(place, settings) : this.#startWorker(place, settings))
    return this.process(role, place)
  }

  /** The ids, in hex, of the traces that this request has spans of. */
  tracesOf(marker: string): string[] {
    return [...generateRequest(this.#generator, indexOfMarker(marker)).traces.keys()]
  }

  /** Requests answered 200 so far. */
  get stored(): number {
    return this.ledger.count('stored')
  }

  /** Waits until so many more requests are answered 200; false when they are not within `withinMs`. */
  async moreStored(count: number, withinMs: number): Promise<boolean> {
    const wanted = this.stored + count
    const untilMs = performance.now() + withinMs
    while (this.stored < wanted && performance.now() < untilMs) await wait(50)
    return this.stored >= wanted
  }

  /** Ends the load and waits for its last answers. */
  async endLoad(): Promise<void> {
    this.#loadOver.abort()
    await this.#load
  }

  /** Ends the processes. Answers those whose exit code was not 0. */
  endProcesses(): Promise<string[]> {
    return this.stage.terminate()
  }

  async close(): Promise<void> {
    await this.endLoad()
    await this.stage.dispose()
    await this.databaseProxy.stop()
    await this.ground.clear()
  }

  async #startIngress(place: number, settings: Readonly<Record<string, string>> = {}): Promise<void> {
    const before = this.#ingresses[place]
    const port = before?.port ?? (await freePort())
    const started = await this.stage.ingress({ ...this.#settings, ...settings, HTTP_PORT: String(port) })
    if (before === undefined) this.#ingresses[place] = { process: started.process, url: started.url, port }
    else before.process = started.process
  }

  async #startWorker(place: number, settings: Readonly<Record<string, string>> = {}): Promise<void> {
    this.#workers[place] = await this.stage.worker({ ...this.#settings, ...settings })
  }

  /** A bounded rate, by a bounded number of clients that each wait for their answer. */
  async #send(): Promise<void> {
    const urls = this.#ingresses.map(({ port }) => new URL(`http://127.0.0.1:${port}`))
    const ingresses = urls.map((url, place) => ({ url, process: this.process('ingress', place) }))
    const sender = new Sender({
      generator: this.#generator,
      ledger: this.ledger,
      ingresses,
      hangUps: true,
    })
    const over = this.#loadOver.signal
    const lane = async () => {
      while (!over.aborted) {
        const startedMs = performance.now()
        await sender.sendNext()
        const pauseMs = (lanes * 1000) / requestsPerSecond - (performance.now() - startedMs)
        if (pauseMs > 0) await wait(pauseMs, undefined, { signal: over }).catch(() => undefined)
      }
    }
    await Promise.all(Array.from({ length: lanes }, lane))
    sender.close()
  }
}
