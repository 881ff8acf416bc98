import { coerceError, Failure, type FailureKind } from '../foundation/failure.ts'

/** What an errno means: nobody's fault, these bytes' fault, or what an operator has to change. */
type Cause = 'outage' | 'data' | { readonly fix: string }

const permission: Cause = { fix: 'Let the user of this process write in DATA_DIR.' }
const readOnly: Cause = { fix: 'Mount the file system of DATA_DIR for writing.' }
const somethingElse: Cause = { fix: 'Move away what lies in DATA_DIR where Sluice keeps its objects.' }
const fileSystem: Cause = { fix: 'Put DATA_DIR on one local file system that knows hard links and fsync.' }
const prefix: Cause = { fix: 'Shorten S3_PREFIX or the path of DATA_DIR.' }

/** Errno names of file system calls (open(2), fsync(2), link(2)). */
const causeOfErrno: Readonly<Record<string, Cause>> = {
  EAGAIN: 'outage',
  EBUSY: 'outage',
  EDQUOT: 'outage',
  EINTR: 'outage',
  EIO: 'outage',
  EMFILE: 'outage',
  EMLINK: 'outage',
  ENFILE: 'outage',
  ENODEV: 'outage',
  ENOENT: 'outage',
  ENOMEM: 'outage',
  ENOSPC: 'outage',
  ENOTCONN: 'outage',
  ESTALE: 'outage',
  ETIMEDOUT: 'outage',
  EACCES: permission,
  EEXIST: somethingElse,
  EISDIR: somethingElse,
  ELOOP: somethingElse,
  ENOSYS: fileSystem,
  ENOTDIR: somethingElse,
  ENOTSUP: fileSystem,
  EOPNOTSUPP: fileSystem,
  EPERM: permission,
  EROFS: readOnly,
  EXDEV: fileSystem,
  EFBIG: 'data',
  EILSEQ: 'data',
  // Names are ours, made of the prefix and the batch: no request is to blame for one.
  ENAMETOOLONG: prefix,
}

/** Classifies whatever a file system call threw. What nothing here knows is a `bug`: unclassified. */
export function folderFailure(what: string, thrown: unknown): Failure {
  if (thrown instanceof Failure) return thrown
  const error = coerceError(thrown)
  const code = (error as NodeJS.ErrnoException).code
  const cause = code === undefined ? undefined : causeOfErrno[code]
  const kind: FailureKind = typeof cause === 'object' ? 'configuration' : (cause ?? 'bug')
  const fix = typeof cause === 'object' ? cause.fix : undefined
  return new Failure(kind, `${what}: ${error.message}`, { code, fix, cause: error })
}
