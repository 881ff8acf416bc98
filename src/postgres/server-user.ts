import { execFileSync } from 'node:child_process'
import { Failure } from '../foundation/failure.ts'

/** The account that the embedded PostgreSQL runs as when this process is root. */
export interface ServerUser {
  readonly name: string
  readonly uid: number
  readonly gid: number
}

const NAME = 'postgres'

/**
 * Who runs the server: nobody else than us, unless we are root, whom PostgreSQL refuses; then the system user
 * `postgres`, who is created where there is none.
 *
 * @throws Failure `configuration` when that user cannot be created.
 */
export function serverUser(): ServerUser | undefined {
  if (process.getuid?.() !== 0) return undefined
  const existing = lookUp()
  if (existing !== undefined) return existing
  try {
    execFileSync(
      'useradd',
      ['--system', '--user-group', '--no-create-home', '--shell', '/usr/sbin/nologin', NAME],
      {
        stdio: 'pipe',
      },
    )
  } catch (cause) {
    throw new Failure(
      'configuration',
      `PostgreSQL refuses to run as root, and the user ${NAME}, as whom it would run instead, could not be ` +
        'created with useradd. Create it, start Sluice as another user, or set DATABASE_URL.',
      { cause },
    )
  }
  const created = lookUp()
  if (created === undefined) {
    throw new Failure('configuration', `useradd created the user ${NAME}, but id does not find it.`)
  }
  return created
}

function lookUp(): ServerUser | undefined {
  const ask = (flag: string) => Number(execFileSync('id', [flag, NAME], { stdio: 'pipe', encoding: 'utf8' }))
  try {
    return { name: NAME, uid: ask('-u'), gid: ask('-g') }
  } catch {
    // `id` answers 1 for a user that is not there; a missing `id` shows when useradd is tried.
    return undefined
  }
}
