import { execFile } from 'node:child_process'
import { chmod, chown, mkdtemp, rm, rmdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { serverUser } from '../../src/postgres/server-user.ts'

const run = promisify(execFile)
const ballastBytes = 256 * 1024
const leftBytes = 16 * 1024

/** A file system of a fixed size in memory, which can be filled and emptied. */
export class SmallDisk {
  readonly folder: string
  readonly #bytes: number

  private constructor(folder: string, bytes: number) {
    this.folder = folder
    this.#bytes = bytes
  }

  /** @throws Error with a sentence where this process may not mount. */
  static async mount(bytes: number): Promise<SmallDisk> {
    const folder = await mkdtemp(join(tmpdir(), 'sluice-stress-disk-'))
    try {
      await run('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', folder])
    } catch (error) {
      await rmdir(folder)
      const said = error instanceof Error ? error.message : String(error)
      throw new Error(
        'A full disk needs a file system of a fixed size, and mounting one is refused: run as root, or in a container ' +
          `with --cap-add SYS_ADMIN (${said.trim()})`,
      )
    }
    await chmod(folder, 0o700)
    const user = serverUser()
    if (user !== undefined) await chown(folder, user.uid, user.gid)
    return new SmallDisk(folder, bytes)
  }

  /** Takes every byte that is left. */
  async fill(): Promise<void> {
    for (let size = ballastBytes, place = 0; size >= leftBytes; ) {
      try {
        await writeFile(join(this.folder, `ballast-${this.#bytes}-${place++}`), Buffer.alloc(size))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
        size = Math.floor(size / 4)
      }
    }
  }

  async empty(): Promise<void> {
    await run('find', [this.folder, '-maxdepth', '1', '-name', 'ballast-*', '-delete'])
  }

  async unmount(): Promise<void> {
    await run('umount', ['--lazy', this.folder])
    await rm(this.folder, { recursive: true, force: true })
  }
}
