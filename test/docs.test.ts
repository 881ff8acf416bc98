import { execFileSync } from 'node:child_process'
import path from 'node:path'
import { expect, test } from 'vitest'

const root = path.join(import.meta.dirname, '..')

test('the generated pages and the example environment say what the code says', () => {
  const check = () =>
    execFileSync(process.execPath, ['scripts/docs.ts', '--check'], { cwd: root, stdio: 'pipe' })
  expect(check).not.toThrow()
})
