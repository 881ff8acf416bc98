import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { FailureKind } from '../../src/foundation/failure.ts'
import { folderFailure } from '../../src/sink/folder-failures.ts'
import { openFolderStore } from '../../src/sink/folder-store.ts'
import { checksumOf } from '../../src/sink/object-key.ts'
import { all, failureOf } from './conformance.ts'

let root: string
let folder: string

beforeEach(async () => {
  root = await mkdtemp(path.join(os.tmpdir(), 'sluice-folder-'))
  folder = path.join(root, 'objects')
})
afterEach(() => rm(root, { recursive: true, force: true }))

const body = Buffer.from('the bytes')
const checksum = checksumOf(body)
const temporary = () => path.join(folder, '.sluice-temporary')

test.each<[FailureKind, string[]]>([
  ['outage', ['ENOSPC', 'EDQUOT', 'EIO', 'EMFILE', 'ENFILE', 'ESTALE', 'ENOMEM', 'EBUSY']],
  ['configuration', ['EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'EXDEV']],
  ['data', ['EFBIG']],
  ['configuration', ['ENAMETOOLONG']],
  ['bug', ['EBADF', 'EINVAL']],
])('%s is what %j are', (kind, codes) => {
  for (const code of codes) {
    const failure = folderFailure('put a', Object.assign(new Error(`${code}: so it is`), { code }))
    expect(failure).toMatchObject({ kind, code, message: `put a: ${code}: so it is` })
  }
})

test('a put leaves nothing but the object', async () => {
  const store = openFolderStore({ folder })
  await store.put('a/b/c', body, checksum)
  await store.put('a/b/c', body, checksum)
  expect(
    await failureOf(store.put('a/b/c', Buffer.from('other'), checksumOf(Buffer.from('other')))),
  ).toMatchObject({
    kind: 'data',
  })
  const files = await readdir(folder, { recursive: true })
  expect(files.toSorted()).toEqual(['.sluice-temporary', 'a', 'a/b', 'a/b/c'])
})

test('temporary files that somebody left are swept, those of somebody who may still be writing are not', async () => {
  await mkdir(temporary(), { recursive: true })
  for (const name of ['old', 'young']) await writeFile(path.join(temporary(), name), body)
  const anHourAgo = Date.now() / 1000 - 3600
  await utimes(path.join(temporary(), 'old'), anHourAgo, anHourAgo)
  const store = openFolderStore({ folder })
  await store.prepare()
  expect(await readdir(temporary())).toEqual(['young'])
  expect(await all(store.list(''))).toEqual([])
})

test('no object can be named where temporary files are', async () => {
  const store = openFolderStore({ folder })
  expect(await failureOf(store.put('.sluice-temporary/x', body, checksum))).toMatchObject({ kind: 'data' })
})

test('a name that the file system cannot keep is a fault of the prefix, and no request is blamed', async () => {
  const store = openFolderStore({ folder })
  expect(await failureOf(store.put('n'.repeat(300), body, checksum))).toMatchObject({
    kind: 'configuration',
    code: 'ENAMETOOLONG',
  })
})

test('a folder that is a file, or cannot be made, is a matter of configuration', async () => {
  await writeFile(folder, 'a file')
  expect(await failureOf(openFolderStore({ folder }).prepare())).toMatchObject({ kind: 'configuration' })
  const below = openFolderStore({ folder: path.join(folder, 'below') })
  expect(await failureOf(below.prepare())).toMatchObject({ kind: 'configuration' })
})

test('a folder that was deleted is made again by the put after the one that noticed', async () => {
  const store = openFolderStore({ folder })
  await store.put('a/1', body, checksum)
  await rm(folder, { recursive: true })
  expect(await failureOf(store.put('a/2', body, checksum))).toMatchObject({ kind: 'outage', code: 'ENOENT' })
  await store.put('a/2', body, checksum)
  expect(await store.get('a/2')).toEqual(body)
})

test('what is in the folder and is no file is no object', async () => {
  const store = openFolderStore({ folder })
  await store.put('a/b', body, checksum)
  await symlink('/etc/hosts', path.join(folder, 'a', 'link'))
  expect((await all(store.list(''))).map(({ key }) => key)).toEqual(['a/b'])
  expect(await store.get('a')).toBeUndefined()
  expect(await store.stat('a')).toBeUndefined()
  expect(await store.get('a/b/c')).toBeUndefined()
})

test('a process killed in the middle of puts leaves whole objects only', async () => {
  const writer = fork(path.join(import.meta.dirname, 'folder-writer.ts'), [folder])
  let puts = 0
  writer.on('message', () => {
    puts += 1
    if (puts === 20) writer.kill('SIGKILL')
  })
  await once(writer, 'exit')
  const store = openFolderStore({ folder })
  await store.prepare()
  const objects = await all(store.list(''))
  expect(objects.length).toBeGreaterThanOrEqual(20)
  for (const { key } of objects) {
    const found = await store.get(key)
    expect({ key, checksum: (await store.stat(key))?.checksum, bytes: found?.length }).toEqual({
      key,
      checksum: `sha256:${key.split('/')[1]}`,
      bytes: 3_000_000,
    })
  }
})
