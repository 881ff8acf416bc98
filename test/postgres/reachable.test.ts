import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { binariesIn } from '../../src/postgres/embedded-binaries.ts'
import {
  blockingFolder,
  makeFolder,
  reachableBinaries,
  requireReachable,
} from '../../src/postgres/reachable.ts'

/** Neither this test's user nor in its group. */
const user = { name: 'postgres', uid: 60_001, gid: 60_001 }

let root: string
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'sluice-reachable-'))
  chmodSync(root, 0o755)
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

function folder(path: string, mode: number): string {
  const whole = join(root, path)
  mkdirSync(whole)
  chmodSync(whole, mode)
  return whole
}

test('the first folder on the way that a user may not enter is the one in the way', () => {
  const open = folder('open', 0o711)
  const closed = folder('open/closed', 0o700)
  expect(blockingFolder(open, user)).toBeUndefined()
  expect(blockingFolder(join(closed, 'below', 'it'), user)).toBe(closed)
  expect(blockingFolder(join(open, 'not', 'made', 'yet'), user)).toBeUndefined()
  const { uid, gid } = statSync(closed)
  expect(blockingFolder(closed, { ...user, uid })).toBeUndefined()
  chmodSync(closed, 0o710)
  expect(blockingFolder(closed, { ...user, gid })).toBeUndefined()
  expect(blockingFolder(closed, user)).toBe(closed)
})

test('a DATA_DIR that the server cannot get to is refused, with the folder in the way and what to do', () => {
  const closed = folder('closed', 0o700)
  expect(() => requireReachable(join(closed, 'data'), user)).toThrow(
    new Failure(
      'configuration',
      `PostgreSQL runs as the user postgres, who may not enter ${closed}, on the way to DATA_DIR=${closed}/data; set ` +
        'DATA_DIR to a folder that everybody may pass, for example DATA_DIR=/var/lib/sluice.',
    ),
  )
})

test('programs that the server can reach are used where they are', async () => {
  const bin = folder('native', 0o755)
  mkdirSync(join(bin, 'bin'))
  const binaries = binariesIn(bin, '18.4.0')
  expect(await reachableBinaries(binaries, user, join(root, 'cache'))).toBe(binaries)
  expect(await reachableBinaries(binariesIn(folder('shut', 0o700), '18.4.0'), undefined, root)).toMatchObject(
    {
      folder: join(root, 'shut'),
    },
  )
})

test('programs below a folder that only root may enter are copied once, whole, by whoever is first', async () => {
  folder('shut', 0o700)
  const native = folder('shut/native', 0o755)
  mkdirSync(join(native, 'bin'))
  chmodSync(join(native, 'bin'), 0o700)
  writeFileSync(join(native, 'bin', 'postgres'), 'program', { mode: 0o700 })
  const cache = join(root, 'cache')
  const binaries = binariesIn(native, '18.4.0')
  const found = await Promise.all([1, 2, 3].map(() => reachableBinaries(binaries, user, cache)))
  const expected = binariesIn(join(cache, 'postgresql-18.4.0'), '18.4.0')
  expect(found).toEqual([expected, expected, expected])
  expect(readdirSync(cache)).toEqual(['postgresql-18.4.0'])
  expect(readFileSync(expected.postgres, 'utf8')).toBe('program')
  expect((statSync(expected.postgres).mode & 0o777).toString(8)).toBe('755')
  expect(blockingFolder(join(expected.folder, 'bin'), user)).toBeUndefined()
})

test('a folder is made as open as it must be, whatever the umask', async () => {
  const umask = process.umask(0o077)
  try {
    await makeFolder(join(root, 'a', 'b'), 0o711)
  } finally {
    process.umask(umask)
  }
  expect(['a', 'a/b'].map((name) => (statSync(join(root, name)).mode & 0o777).toString(8))).toEqual([
    '711',
    '711',
  ])
  chmodSync(join(root, 'a'), 0o700)
  await makeFolder(join(root, 'a', 'b'), 0o711)
  expect((statSync(join(root, 'a')).mode & 0o777).toString(8)).toBe('700')
})
