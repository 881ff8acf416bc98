import { randomBytes } from 'node:crypto'
import { openFolderStore } from '../../src/sink/folder-store.ts'
import { checksumOf, sha256Of } from '../../src/sink/object-key.ts'

/** Puts objects, each named by its own checksum, four at a time, and says so after each, until it is killed. */
const store = openFolderStore({ folder: process.argv[2] ?? '' })

async function write(worker: number): Promise<void> {
  for (;;) {
    const body = randomBytes(3_000_000)
    const checksum = checksumOf(body)
    await store.put(`w${worker}/${sha256Of(checksum)}`, body, checksum)
    process.send?.('put')
  }
}

await Promise.all([0, 1, 2, 3].map(write))
