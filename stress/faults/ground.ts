import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Machine, StageOptions } from '../machine.ts'
import type { PostgresServer } from '../postgres-server.ts'
import { FakeClock } from './fake-clock.ts'
import { SmallDisk } from './small-disk.ts'

/** What a scene stands on that differs from the servers of the machine. */
export interface GroundWishes {
  /** Objects go to the folder store on a small disk of so many bytes. */
  readonly storeDiskBytes?: number
  /** PostgreSQL is a server of its own, and all its data lie on a small disk of so many bytes. */
  readonly databaseDiskBytes?: number
  /**
   * The load begins on the next day at this time, UTC, such as `23:59:50`: by the clock of PostgreSQL and of all four
   * processes. Objects go to the folder store, because MinIO, as every program in Go, asks the kernel for the time.
   */
  readonly loadBeginsAt?: string
}

/** How long before its load a scene with a clock of its own is set up. */
const setUpSeconds = 60

/** Small disks, a server, a clock: what a scene has for itself, until it is cleared away. */
export class Ground {
  storeDisk: SmallDisk | undefined
  databaseDisk: SmallDisk | undefined
  server: PostgresServer | undefined
  clock: FakeClock | undefined
  #storeFolder: string | undefined
  readonly #machine: Machine
  readonly #wishes: GroundWishes

  private constructor(machine: Machine, wishes: GroundWishes) {
    this.#machine = machine
    this.#wishes = wishes
  }

  /** @throws Error with a sentence where mounting is refused or libfaketime is missing. */
  static async lay(machine: Machine, wishes: GroundWishes): Promise<Ground> {
    const ground = new Ground(machine, wishes)
    try {
      await ground.#lay()
      return ground
    } catch (error) {
      await ground.clear()
      throw error
    }
  }

  async #lay(): Promise<void> {
    const { storeDiskBytes, databaseDiskBytes, loadBeginsAt } = this.#wishes
    if (storeDiskBytes !== undefined) this.storeDisk = await SmallDisk.mount(storeDiskBytes)
    if (databaseDiskBytes !== undefined) this.databaseDisk = await SmallDisk.mount(databaseDiskBytes)
    if (loadBeginsAt !== undefined) {
      this.clock = await FakeClock.make(offsetOf(loadBeginsAt) - setUpSeconds)
      this.#storeFolder = await mkdtemp(join(tmpdir(), 'sluice-stress-folder-'))
    }
    if (this.databaseDisk === undefined && this.clock === undefined) return
    this.server = await this.#machine.startServer({
      disk: this.databaseDisk?.folder,
      environment: this.clock?.environment,
      // A small disk has no room for more.
      settings: this.databaseDisk === undefined ? {} : { max_wal_size: '64MB' },
    })
  }

  get stage(): StageOptions {
    return { server: this.server, dataDir: this.storeDisk?.folder ?? this.#storeFolder }
  }

  /** To be called right before the load, when everything is at rest: a jump of a clock is another fault. */
  async loadBegins(): Promise<void> {
    const { loadBeginsAt } = this.#wishes
    if (loadBeginsAt !== undefined) await this.clock?.set(offsetOf(loadBeginsAt))
  }

  async clear(): Promise<void> {
    if (this.server !== undefined) await this.#machine.stopServer(this.server)
    await this.storeDisk?.unmount()
    await this.databaseDisk?.unmount()
    await this.clock?.remove()
    if (this.#storeFolder !== undefined) await rm(this.#storeFolder, { recursive: true, force: true })
  }
}

/** Seconds from the real time to this time of the next day, UTC. */
function offsetOf(time: string): number {
  const tomorrow = new Date(Date.now() + 86_400_000).toISOString().slice(0, 10)
  return Math.round((Date.parse(`${tomorrow}T${time}Z`) - Date.now()) / 1000)
}
