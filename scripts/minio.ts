/**
 * Installs a real MinIO server at `.tools/minio` for the tests, unless there is one: with Go's own `go install`
 * (about 3 minutes, once), else out of its container image.
 */
import { execFile } from 'node:child_process'
import { access, constants, mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { runLong } from './long-command.ts'

const goModule = 'github.com/minio/minio'
const version = 'v0.0.0-20260212201848-7aac2a2c5b7c'
const image = 'minio/minio:RELEASE.2025-09-07T16-13-09Z'

const tools = path.join(import.meta.dirname, '../.tools')
const installed = path.join(tools, 'minio')
const run = promisify(execFile)

async function existing(): Promise<string | undefined> {
  const { MINIO_BIN, PATH = '' } = process.env
  const candidates = PATH.split(path.delimiter).map((folder) => path.join(folder, 'minio'))
  for (const file of [MINIO_BIN ?? '', ...candidates, installed]) {
    if (file !== '' && (await canRun(file))) return file
  }
  return undefined
}

function canRun(file: string): Promise<boolean> {
  return access(file, constants.X_OK).then(
    () => true,
    () => false,
  )
}

function answers(command: string, ...words: string[]): Promise<boolean> {
  return run(command, words, { timeout: 10_000 }).then(
    () => true,
    () => false,
  )
}

async function install(): Promise<void> {
  await mkdir(tools, { recursive: true })
  // On the same file system, so that the program appears under its name all at once.
  const folder = await mkdtemp(path.join(tools, 'minio-'))
  try {
    const built = path.join(folder, 'minio')
    if (await answers('go', 'version')) {
      console.log(`Building MinIO ${version} with go install; this takes about 3 minutes, once.`)
      await runLong('go install', 'go', ['install', `${goModule}@${version}`], {
        env: { GOBIN: folder, CGO_ENABLED: '0' },
      })
    } else if (process.platform === 'linux' && (await answers('docker', 'info'))) {
      console.log(`Go is not here; taking the server out of the image ${image}.`)
      const container = path.basename(folder).toLowerCase()
      await runLong('docker create', 'docker', ['create', '--name', container, image])
      try {
        await runLong('docker cp', 'docker', ['cp', `${container}:/usr/bin/minio`, built])
      } finally {
        await run('docker', ['rm', '--force', container])
      }
    } else {
      throw new Error(
        'MinIO cannot be installed: neither Go nor a running Docker engine is here. Install Go (https://go.dev/dl), ' +
          'or put a `minio` program on the PATH, or let MINIO_BIN name one.',
      )
    }
    const { stdout } = await run(built, ['--version'])
    await rename(built, installed)
    console.log(`${installed}: ${stdout.split('\n', 1)[0]}`)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

try {
  const found = await existing()
  if (found === undefined) await install()
  else console.log(`MinIO is there: ${found}`)
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
