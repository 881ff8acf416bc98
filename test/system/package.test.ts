import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { freePort } from '../support/free-port.ts'
import { post, spanRequest } from './sluice.ts'

// No container engine is needed for these: they are the steps of the Dockerfile, taken natively.

const root = path.join(import.meta.dirname, '../..')
const run = promisify(execFile)
const onNode24 = {
  ...process.env,
  PATH: `${path.dirname(process.execPath)}${path.delimiter}${process.env.PATH}`,
}
let folder: string

beforeAll(async () => {
  if (!existsSync(path.join(root, 'dist/src/main.js')))
    throw new Error('There is no dist/: run `make build` first.')
  folder = await mkdtemp(path.join(tmpdir(), 'sluice-package-'))
  // Where the tests run as root, PostgreSQL runs as another user, who has to pass here.
  await chmod(folder, 0o755)
  await run('npm', ['pack', '--silent', '--pack-destination', folder], { cwd: root, env: onNode24 })
  const { version } = await import('../../package.json', { with: { type: 'json' } }).then(
    (file) => file.default,
  )
  const install = ['install', '--no-audit', '--no-fund', '--prefer-offline', `./sluice-${version}.tgz`]
  await run('npm', install, { cwd: folder, env: onNode24 })
})

afterAll(() => rm(folder, { recursive: true, force: true }))

const program = () => path.join(folder, 'node_modules/.bin/sluice')

/** Resolves when the program says that it has started. */
async function started(child: ChildProcess): Promise<void> {
  if (child.stdout === null) throw new Error('the program has no standard output')
  let output = ''
  for await (const line of createInterface(child.stdout)) {
    output += `${line}\n`
    if ((JSON.parse(line) as { event: string }).event === 'started') {
      child.stdout.resume()
      return
    }
  }
  throw new Error(`the program ended before it had started:\n${output}`)
}

test('the packed program, installed into an empty folder, says how it is used', async () => {
  const { stdout } = await run(program(), ['--help'], { env: onNode24 })
  expect(stdout.split('\n', 1)).toEqual(['Usage: sluice [options] [command]'])
})

test('the packed program takes and stores a request with nothing else installed, drains on SIGTERM and exits with 0', async () => {
  const [httpPort, adminPort] = [await freePort(), await freePort()]
  const child = spawn(program(), ['serve'], {
    cwd: folder,
    env: { PATH: onNode24.PATH, HTTP_PORT: String(httpPort), GRPC_PORT: '0', ADMIN_PORT: String(adminPort) },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exited = once(child, 'exit')
  try {
    await started(child)
    const status = await post(`http://127.0.0.1:${httpPort}`, spanRequest('packed'))
    const stored = path.join(folder, 'data/objects/traces/tenant=default')
    await vi.waitUntil(() => existsSync(stored), { timeout: 10_000 })
    child.kill('SIGTERM')
    expect({ status, exit: await exited }).toEqual({ status: 200, exit: [0, null] })
  } finally {
    child.kill('SIGKILL')
  }
})
