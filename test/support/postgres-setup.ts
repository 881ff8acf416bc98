import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { stopServer } from './postgres-server.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** A folder of this run, in which the first test that needs PostgreSQL starts it. */
    postgresFolder: string
  }
}

/** Lends every worker one folder for the PostgreSQL server of this run, and stops that server afterwards. */
export default function setup(project: TestProject): () => Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-test-'))
  project.provide('postgresFolder', folder)
  return async () => {
    if (existsSync(join(folder, 'pid'))) await stopServer(Number(readFileSync(join(folder, 'pid'), 'utf8')))
    rmSync(folder, { recursive: true, force: true })
  }
}
