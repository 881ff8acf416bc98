import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe } from 'vitest'
import { openFolderStore } from '../../src/sink/folder-store.ts'
import { storeConformance } from './conformance.ts'

let root: string
let places = 0

beforeAll(async () => {
  root = await mkdtemp(path.join(os.tmpdir(), 'sluice-folder-'))
})
afterAll(() => rm(root, { recursive: true, force: true }))

describe('the folder store', () => {
  storeConformance(async () => {
    places += 1
    const folder = path.join(root, `place-${places}`, 'objects')
    return { store: openFolderStore({ folder }), again: () => openFolderStore({ folder }) }
  })
})
