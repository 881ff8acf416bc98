/** Builds the container image `sluice`, tagged with the version and `latest`, by Docker or Podman. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'

const root = path.join(import.meta.dirname, '..')
const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { version: string }

const engine = ['docker', 'podman'].find(
  (name) => spawnSync(name, ['info'], { stdio: 'ignore', timeout: 20_000 }).status === 0,
)
if (engine === undefined) {
  console.error(
    'Building the image needs a container engine: install Docker or Podman, start it, and run `make image` again.',
  )
  process.exitCode = 1
} else {
  const built = spawnSync(engine, ['build', '--tag', `sluice:${version}`, '--tag', 'sluice:latest', '.'], {
    cwd: root,
    stdio: 'inherit',
  })
  process.exitCode = built.status ?? 1
}
