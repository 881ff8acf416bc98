import { existsSync, readdirSync } from 'node:fs'
import { chmod, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'

const libraryFolders = ['/usr/lib', '/usr/local/lib']

/** libfaketime, which stands between a process and its clock. */
function faketimeLibrary(): string {
  for (const folder of libraryFolders.filter((one) => existsSync(one))) {
    const inner = readdirSync(folder).map((name) => path.join(folder, name, 'faketime'))
    const files = [path.join(folder, 'faketime'), ...inner].map((one) => path.join(one, 'libfaketime.so.1'))
    const found = files.find((file) => existsSync(file))
    if (found !== undefined) return found
  }
  throw new Error('this fault needs libfaketime, and it is not there: apt-get install faketime')
}

/**
 * A clock that processes go by, set at any moment. Their monotonic clock is left alone, as a real one is by a jump.
 */
export class FakeClock {
  /** What a process that goes by it finds in its environment. */
  readonly environment: Readonly<Record<string, string>>
  readonly #folder: string

  private constructor(folder: string, library: string) {
    this.#folder = folder
    this.environment = {
      LD_PRELOAD: library,
      FAKETIME_TIMESTAMP_FILE: path.join(folder, 'clock'),
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      DONT_FAKE_MONOTONIC: '1',
    }
  }

  /** @throws Error with a sentence where libfaketime is missing. */
  static async make(offsetSeconds: number): Promise<FakeClock> {
    const library = faketimeLibrary()
    const folder = await mkdtemp(path.join(tmpdir(), 'sluice-clock-'))
    // The user of a server must be able to read it, too.
    await chmod(folder, 0o711)
    const clock = new FakeClock(folder, library)
    await clock.set(offsetSeconds)
    return clock
  }

  /** Makes it run so far ahead of the real one, or behind it. At no moment is the file half written. */
  async set(offsetSeconds: number): Promise<void> {
    const file = path.join(this.#folder, 'clock')
    const sign = offsetSeconds < 0 ? '-' : '+'
    await writeFile(`${file}.new`, `${sign}${Math.abs(offsetSeconds)}\n`, { mode: 0o644 })
    await rename(`${file}.new`, file)
  }

  async remove(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true })
  }
}
