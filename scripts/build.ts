import { execFileSync } from 'node:child_process'
import { chmodSync, rmSync } from 'node:fs'
import path from 'node:path'

// Builds dist/ for the package and the image: the same files as src/, without their types.
const root = path.join(import.meta.dirname, '..')
rmSync(path.join(root, 'dist'), { recursive: true, force: true })
const compiler = path.join(root, 'node_modules/.bin/tsc')
execFileSync(compiler, ['--project', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' })
chmodSync(path.join(root, 'dist/src/main.js'), 0o755)
