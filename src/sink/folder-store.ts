import { createHash, randomUUID } from 'node:crypto'
import { type FileHandle, link, mkdir, open, opendir, stat, unlink } from 'node:fs/promises'
import path from 'node:path'
import { type Clock, systemClock } from '../foundation/clock.ts'
import { Failure } from '../foundation/failure.ts'
import { withDeadline } from './deadline.ts'
import { folderFailure } from './folder-failures.ts'
import { assertStorableKey } from './object-key.ts'
import type { ObjectStore, StoredObjectInfo } from './object-store.ts'

export interface FolderSettings {
  folder: string
  /** For every operation but a listing: 30,000. */
  timeoutMs?: number
  clock?: Clock
}

/** Where files are written before they get their name: below the folder, so that both are on one file system. */
const temporaryFolder = '.sluice-temporary'
/** Far beyond the deadline of a put: another process may be writing here. */
const temporaryAgeMaxMs = 10 * 60_000
/** Folders that are remembered as being on disk; there is one for each signal, tenant and hour. */
const foldersRememberedMax = 10_000
const readBytes = 1024 * 1024

/** Objects as files below a folder, under the keys that they would have in a bucket. */
export function openFolderStore(settings: FolderSettings): ObjectStore {
  return new FolderStore(settings)
}

/**
 * **Maintained invariant**: a file has its final name only when its bytes, its name and every folder above it are on
 * disk, and a name once given is never given to other bytes. So a put writes and syncs a temporary file, links it
 * (link(2), unlike rename(2), does not replace), and syncs the folder.
 */
class FolderStore implements ObjectStore {
  readonly description: string
  readonly bucket: string
  readonly #clock: Clock
  readonly #timeoutMs: number
  readonly #closed = new AbortController()
  readonly #onDisk = new Map<string, Promise<void>>()

  constructor({ folder, timeoutMs = 30_000, clock = systemClock }: FolderSettings) {
    this.bucket = path.resolve(folder)
    this.description = `folder ${this.bucket}`
    this.#timeoutMs = timeoutMs
    this.#clock = clock
  }

  prepare(signal?: AbortSignal): Promise<void> {
    return this.#call('prepare the folder', signal, async () => {
      await this.#putOnDisk(this.#temporary())
      await this.#sweepTemporaryFiles()
    })
  }

  put(key: string, body: Buffer, checksum: string, signal?: AbortSignal): Promise<void> {
    return this.#call(`put ${key}`, signal, async (inner) => {
      const file = this.#fileOf(key)
      await this.#putOnDisk(this.#temporary())
      await this.#putOnDisk(path.dirname(file))
      const temporary = this.#temporary(randomUUID())
      try {
        await writeAndSync(temporary, body)
        inner.throwIfAborted()
        await link(temporary, file)
      } catch (thrown) {
        const code = errnoOf(thrown)
        // Somebody removed a folder that we remember.
        if (code === 'ENOENT') this.#onDisk.clear()
        if (code !== 'EEXIST') throw thrown
        await this.#confirm(key, body, checksum)
      } finally {
        await unlink(temporary).catch(unlessAbsent)
      }
      await syncFolder(path.dirname(file))
    })
  }

  get(
    key: string,
    range?: { start: number; end: number },
    signal?: AbortSignal,
  ): Promise<Buffer | undefined> {
    return this.#call(`get ${key}`, signal, (inner) =>
      unlessNoFile(this.#fileOf(key), async (handle) => {
        const { size } = await handle.stat()
        const start = Math.min(range?.start ?? 0, size)
        const end = Math.min(range?.end ?? size, size)
        const bytes = Buffer.allocUnsafe(Math.max(0, end - start))
        let filled = 0
        while (filled < bytes.length) {
          inner.throwIfAborted()
          const { bytesRead } = await handle.read(bytes, filled, bytes.length - filled, start + filled)
          if (bytesRead === 0) throw new Failure('outage', `get ${key}: the file became shorter`)
          filled += bytesRead
        }
        return bytes
      }),
    )
  }

  /** Reads the whole file for its checksum: what is on disk now, not what once was meant to be. */
  stat(key: string, signal?: AbortSignal): Promise<StoredObjectInfo | undefined> {
    return this.#call(`stat ${key}`, signal, (inner) => this.#statOrAbsent(key, inner))
  }

  remove(key: string, signal?: AbortSignal): Promise<void> {
    return this.#call(`remove ${key}`, signal, async () => {
      const file = this.#fileOf(key)
      try {
        await unlink(file)
        await syncFolder(path.dirname(file))
      } catch (thrown) {
        unlessAbsent(thrown)
      }
    })
  }

  async *list(prefix: string, signal?: AbortSignal): AsyncGenerator<StoredObjectInfo> {
    const goOn = () => {
      signal?.throwIfAborted()
      this.#closed.signal.throwIfAborted()
    }
    try {
      goOn()
      for await (const file of filesBelow(this.bucket, '', prefix)) {
        goOn()
        const info = await stat(path.join(this.bucket, file)).catch(unlessAbsent)
        if (info === undefined) continue
        yield { key: file, bytes: info.size, checksum: undefined, modifiedAt: info.mtime }
      }
    } catch (thrown) {
      if (!signal?.aborted && !this.#closed.signal.aborted) throw folderFailure(`list ${prefix}`, thrown)
      throw new Failure('outage', `list ${prefix}: given up`, { code: 'ABORT_ERR', cause: thrown })
    }
  }

  close(): Promise<void> {
    this.#closed.abort(new Error('the store is closed'))
    return Promise.resolve()
  }

  #temporary(name = ''): string {
    return path.join(this.bucket, temporaryFolder, name)
  }

  #fileOf(key: string): string {
    assertStorableKey(key)
    if (key.startsWith(`${temporaryFolder}/`)) {
      throw new Failure('data', `objects cannot be named below ${temporaryFolder}/`, {
        code: 'InvalidObjectName',
      })
    }
    return path.join(this.bucket, ...key.split('/'))
  }

  /**
   * Makes a folder and syncs the entry that its parent has of it, once for each folder and process: one that is there
   * may have been made a moment ago by somebody who has not synced it yet.
   */
  #putOnDisk(folder: string): Promise<void> {
    const known = this.#onDisk.get(folder)
    if (known !== undefined) return known
    if (this.#onDisk.size >= foldersRememberedMax) this.#onDisk.clear()
    const made = this.#makeFolder(folder)
    this.#onDisk.set(folder, made)
    made.catch(() => this.#onDisk.delete(folder))
    return made
  }

  async #makeFolder(folder: string): Promise<void> {
    const parent = path.dirname(folder)
    try {
      await mkdir(folder)
    } catch (thrown) {
      const code = errnoOf(thrown)
      if (code === 'ENOENT' && parent !== folder) {
        this.#onDisk.delete(parent)
        await this.#putOnDisk(parent)
        await mkdir(folder).catch(unlessFolderExists)
      } else if (code !== 'EEXIST' || !(await stat(folder)).isDirectory()) {
        throw thrown
      }
    }
    const ours = folder.length > this.bucket.length
    // Above the store's own folder there may be ones that we may enter but not open.
    await (ours ? syncFolder(parent) : syncFolder(parent).catch(unlessForbidden))
    if (ours) await this.#putOnDisk(parent)
  }

  async #sweepTemporaryFiles(): Promise<void> {
    const oldestMs = this.#clock.wallMs() - temporaryAgeMaxMs
    for await (const { name } of await opendir(this.#temporary())) {
      const info = await stat(this.#temporary(name)).catch(unlessAbsent)
      if (info !== undefined && info.mtimeMs < oldestMs)
        await unlink(this.#temporary(name)).catch(unlessAbsent)
    }
  }

  /** The key is taken: by the same bytes, whose put was not answered, or by others. */
  async #confirm(key: string, body: Buffer, checksum: string): Promise<void> {
    const stored = await this.#statOrAbsent(key)
    if (stored === undefined) {
      throw new Failure('outage', `put ${key}: the name was taken and then was not`, { code: 'EEXIST' })
    }
    if (stored.bytes === body.length && stored.checksum === checksum) return
    throw new Failure(
      'data',
      `put ${key}: another object has this key (${stored.bytes} bytes, ${stored.checksum}; ` +
        `ours: ${body.length} bytes, ${checksum})`,
      { code: 'PreconditionFailed' },
    )
  }

  #statOrAbsent(key: string, signal?: AbortSignal): Promise<StoredObjectInfo | undefined> {
    return unlessNoFile(this.#fileOf(key), async (handle) => {
      const { size, mtime } = await handle.stat()
      const sha256 = createHash('sha256')
      const chunk = Buffer.allocUnsafe(Math.min(readBytes, size + 1))
      for (;;) {
        signal?.throwIfAborted()
        const { bytesRead } = await handle.read(chunk, 0, chunk.length, null)
        if (bytesRead === 0) break
        sha256.update(chunk.subarray(0, bytesRead))
      }
      return { key, bytes: size, checksum: `sha256:${sha256.digest('hex')}`, modifiedAt: mtime }
    })
  }

  async #call<T>(
    what: string,
    signal: AbortSignal | undefined,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const deadline = {
      clock: this.#clock,
      timeoutMs: this.#timeoutMs,
      signals: [this.#closed.signal, signal],
    }
    try {
      return await withDeadline(what, deadline, work)
    } catch (thrown) {
      throw folderFailure(what, thrown)
    }
  }
}

async function writeAndSync(file: string, body: Buffer): Promise<void> {
  const handle = await open(file, 'wx', 0o644)
  try {
    await handle.writeFile(body)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Puts the names in a folder on disk (fsync(2): syncing a file does not sync the entry of it). */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Every file below a folder, as keys that begin with `prefix`; folders that cannot hold one are not read. */
async function* filesBelow(root: string, folder: string, prefix: string): AsyncGenerator<string> {
  const entries = await opendir(path.join(root, folder)).catch(unlessAbsent)
  if (entries === undefined) return
  for await (const entry of entries) {
    const key = folder === '' ? entry.name : `${folder}/${entry.name}`
    if (entry.isFile() && key.startsWith(prefix)) yield key
    if (!entry.isDirectory() || key === temporaryFolder) continue
    if (`${key}/`.startsWith(prefix) || prefix.startsWith(`${key}/`)) yield* filesBelow(root, key, prefix)
  }
}

async function unlessNoFile<T>(
  file: string,
  read: (handle: FileHandle) => Promise<T>,
): Promise<T | undefined> {
  const handle = await open(file, 'r').catch(unlessAbsent)
  if (handle === undefined) return undefined
  try {
    return (await handle.stat()).isFile() ? await read(handle) : undefined
  } finally {
    await handle.close()
  }
}

function errnoOf(thrown: unknown): string | undefined {
  return (thrown as NodeJS.ErrnoException).code
}

/** A step of the path that is a file, not a folder, means the same as a step that is not there. */
function unlessAbsent(thrown: unknown): undefined {
  const code = errnoOf(thrown)
  if (code !== 'ENOENT' && code !== 'ENOTDIR') throw thrown
}

function unlessFolderExists(thrown: unknown): undefined {
  if (errnoOf(thrown) !== 'EEXIST') throw thrown
}

function unlessForbidden(thrown: unknown): undefined {
  const code = errnoOf(thrown)
  if (code !== 'EACCES' && code !== 'EPERM') throw thrown
}
