import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { freePort } from '../test/support/free-port.ts'
import { minioBinary, type RunningMinio, startMinio } from '../test/support/minio.ts'
import { FaultProxy } from './faults/proxy.ts'
import { S3Answers } from './faults/s3-answers.ts'
import { PostgresServer, type ServerOptions } from './postgres-server.ts'
import { seededRandom } from './seeded-random.ts'
import { SluiceProcess } from './sluice-process.ts'
import { bucketReader, folderReader, type StoreReader } from './store-reader.ts'

let running: Machine | undefined

/** Lets Ctrl-C end every process that was started, by its id, and delete what they wrote; a second one waits for nothing. */
export function endOnSignals(): void {
  let told = false
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (told || running === undefined) process.exit(130)
      told = true
      const exit = () => process.exit(130)
      running.abandon().then(exit, exit)
    })
  }
}

export type Database = postgres.Sql<{ bigint: bigint }>

/** The real servers that every scenario shares, and everything that has to be ended at the end. */
export class Machine {
  readonly postgres: PostgresServer
  #minio: RunningMinio
  readonly #stages: Stage[] = []
  readonly #killAtExit: () => void
  /** Servers of scenarios that need one of their own. */
  readonly #ownServers = new Set<PostgresServer>()
  /** Servers with a database to copy. */
  readonly #prepared = new WeakSet<PostgresServer>()

  private constructor(server: PostgresServer, minio: RunningMinio) {
    this.postgres = server
    this.#minio = minio
    this.#killAtExit = () => {
      for (const stage of this.#stages) for (const one of stage.processes) one.killNow()
      for (const server of this.#servers) server.killNow()
    }
    process.on('exit', this.#killAtExit)
  }

  /**
   * @param settings of PostgreSQL, besides the usual
   * @throws Error with a sentence when a server's program is missing.
   */
  static async start(settings: ServerOptions['settings'] = {}): Promise<Machine> {
    minioBinary()
    const server = await PostgresServer.start({ settings })
    try {
      const dataDir = await mkdtemp(join(tmpdir(), 'sluice-stress-minio-'))
      running = new Machine(server, await startMinio({ dataDir }))
      return running
    } catch (error) {
      await server.stop()
      throw error
    }
  }

  get minio(): RunningMinio {
    return this.#minio
  }

  /** Kills MinIO as a crash would. */
  async crashMinio(): Promise<void> {
    process.kill(this.#minio.pid, 'SIGKILL')
    // Reaps it.
    await this.#minio.stop()
  }

  /** Starts it on the data and the port that it had, and with the secret unless another is given. */
  async restartMinio(secret?: string): Promise<void> {
    const { dataDir, endpoint, secretKey } = this.#minio
    this.#minio = await startMinio({ dataDir, port: Number(endpoint.port), secretKey: secret ?? secretKey })
  }

  /** Another PostgreSQL, to be stopped with `stopServer`. */
  async startServer(options: ServerOptions): Promise<PostgresServer> {
    const server = await PostgresServer.start(options)
    this.#ownServers.add(server)
    return server
  }

  async stopServer(server: PostgresServer): Promise<void> {
    await server.stop()
    this.#ownServers.delete(server)
  }

  get #servers(): PostgresServer[] {
    return [this.postgres, ...this.#ownServers]
  }

  /**
   * A database and a bucket of their own, behind a proxy of their own. The first one of a server runs `sluice migrate`.
   *
   * @param options.server the PostgreSQL of the database, if not the one that is shared
   * @param options.dataDir has objects go to the folder store below it instead of a bucket
   */
  async stage(name: string, seed = 1, options: StageOptions = {}): Promise<Stage> {
    const { server = this.postgres, dataDir } = options
    const template = 'stress_template'
    if (!this.#prepared.has(server)) {
      await admin(server, (sql) => sql.unsafe(`CREATE DATABASE ${template}`))
      const migration = new SluiceProcess({
        name: 'migrate',
        args: ['migrate'],
        environment: { DATABASE_URL: server.url(template) },
        adminPort: 0,
      })
      const code = await migration.end()
      if (code !== 0) throw new Error(`sluice migrate ended with ${code}:\n${migration.lastWords()}`)
      this.#prepared.add(server)
    }
    const database = `stress_${name.replaceAll('-', '_')}`
    await admin(server, (sql) => sql.unsafe(`CREATE DATABASE ${database} TEMPLATE ${template}`))
    const { hostname: host, port } = this.minio.endpoint
    const proxy = await FaultProxy.start({
      target: { host, port: Number(port) },
      random: seededRandom(seed),
      watch: () => new S3Answers(),
    })
    const stage = new Stage({ machine: this, name, server, database, proxy, dataDir })
    this.#stages.push(stage)
    return stage
  }

  async drop(stage: Stage): Promise<void> {
    this.#stages.splice(this.#stages.indexOf(stage), 1)
    // A server of its own goes as a whole.
    if (stage.server !== this.postgres) return
    await admin(stage.server, (sql) => sql.unsafe(`DROP DATABASE ${stage.database} WITH (FORCE)`))
  }

  /** Every process of the program that ran so far. */
  get processes(): readonly SluiceProcess[] {
    return this.#stages.flatMap((stage) => stage.processes)
  }

  /** Ends everything at once: for a run that was told to end before its end. */
  async abandon(): Promise<void> {
    for (const one of this.processes) one.killNow()
    await Promise.all([this.#stopMinio(), ...this.#servers.map((server) => server.stop())])
    process.off('exit', this.#killAtExit)
  }

  async stop(): Promise<void> {
    for (const stage of this.#stages) await stage.close()
    await this.#stopMinio()
    for (const server of this.#servers) await server.stop()
    process.off('exit', this.#killAtExit)
  }

  async #stopMinio(): Promise<void> {
    await this.#minio.stop()
    await rm(this.#minio.dataDir, { recursive: true, force: true })
  }
}

async function admin(server: PostgresServer, use: (sql: postgres.Sql) => Promise<unknown>): Promise<void> {
  const sql = postgres(server.url('postgres'), { max: 1, onnotice: () => undefined })
  try {
    await use(sql)
  } finally {
    await sql.end({ timeout: 2 })
  }
}

export interface StageOptions {
  server?: PostgresServer | undefined
  dataDir?: string | undefined
}

/** An ingress as a scenario talks to it. */
export interface Ingress {
  readonly process: SluiceProcess
  readonly url: URL
}

/** What one scenario plays on: a database, a bucket, a proxy before the store, and its processes. */
export class Stage {
  readonly name: string
  readonly database: string
  readonly proxy: FaultProxy
  readonly bucket: string
  readonly databaseUrl: string
  readonly sql: Database
  readonly processes: SluiceProcess[] = []
  readonly machine: Machine
  readonly server: PostgresServer
  readonly #dataDir: string | undefined

  constructor(of: {
    machine: Machine
    name: string
    server: PostgresServer
    database: string
    proxy: FaultProxy
    dataDir: string | undefined
  }) {
    this.machine = of.machine
    this.name = of.name
    this.server = of.server
    this.database = of.database
    this.proxy = of.proxy
    this.#dataDir = of.dataDir
    this.bucket = `stress-${of.name}`
    this.databaseUrl = of.server.url(of.database)
    this.sql = postgres(this.databaseUrl, {
      max: 3,
      types: { bigint: postgres.BigInt },
      onnotice: () => undefined,
    })
  }

  /** Where its objects are, past the proxy. */
  get store(): StoreReader {
    return this.#dataDir === undefined
      ? bucketReader(this.machine.minio, this.bucket)
      : folderReader(this.#dataDir)
  }

  /** Starts `serve --role ingress` and resolves when it is ready. */
  async ingress(
    settings: Readonly<Record<string, string>> = {},
  ): Promise<Ingress & { readonly grpcPort: number }> {
    const port = await freePort()
    const grpcPort = await freePort()
    const ports = { HTTP_PORT: String(port), GRPC_PORT: String(grpcPort) }
    const started = await this.#serve('ingress', { ...ports, ...settings })
    return { process: started, url: new URL(`http://127.0.0.1:${port}`), grpcPort }
  }

  /** Starts `serve --role worker` and resolves when it is ready. Its store is behind the proxy. */
  worker(settings: Readonly<Record<string, string>> = {}): Promise<SluiceProcess> {
    return this.#serve('worker', settings)
  }

  /** Ends every process that still runs, with SIGTERM. Answers those whose exit code is not 0. */
  async terminate(): Promise<string[]> {
    const running = this.processes.filter((one) => !one.wasEnded)
    const codes = await Promise.all(
      running.map(async (one) => ({ name: one.name, code: await one.terminate() })),
    )
    return codes.filter(({ code }) => code !== 0).map(({ name, code }) => `${name}: ${code}`)
  }

  /** Ends everything and deletes the database: for stages that leave much behind. */
  async dispose(): Promise<void> {
    await this.close()
    await this.machine.drop(this)
  }

  async close(): Promise<void> {
    await this.terminate()
    await this.proxy.stop()
    await this.sql.end({ timeout: 2 })
  }

  async #serve(
    role: 'ingress' | 'worker',
    settings: Readonly<Record<string, string>>,
  ): Promise<SluiceProcess> {
    const adminPort = await freePort()
    const { accessKey, secretKey } = this.machine.minio
    const store: Record<string, string> =
      this.#dataDir === undefined
        ? {
            S3_ENDPOINT: this.proxy.endpoint.origin,
            S3_BUCKET: this.bucket,
            S3_ACCESS_KEY: accessKey,
            S3_SECRET_KEY: secretKey,
          }
        : { DATA_DIR: this.#dataDir }
    const started = new SluiceProcess({
      name: `${this.name} ${role} ${this.processes.length + 1}`,
      args: ['serve', '--role', role],
      adminPort,
      environment: {
        DATABASE_URL: this.databaseUrl,
        ...store,
        ADMIN_PORT: String(adminPort),
        STAGING_MAX_BACKLOG: '100000',
        ...settings,
      },
    })
    this.processes.push(started)
    await started.ready()
    return started
  }
}
