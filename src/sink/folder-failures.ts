import { coerceError, Failure, type FailureKind } from '../foundation/failure.ts'

/** Errno names of file system calls (open(2), fsync(2), link(2)). */
const kindOfErrno: Readonly<Record<string, FailureKind>> = {
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
  EACCES: 'configuration',
  EEXIST: 'configuration',
  EISDIR: 'configuration',
  ELOOP: 'configuration',
  ENOSYS: 'configuration',
  ENOTDIR: 'configuration',
  ENOTSUP: 'configuration',
  EOPNOTSUPP: 'configuration',
  EPERM: 'configuration',
  EROFS: 'configuration',
  EXDEV: 'configuration',
  EFBIG: 'data',
  EILSEQ: 'data',
  // Names are ours, made of the prefix and the batch: no request is to blame for one.
  ENAMETOOLONG: 'configuration',
}

/** Classifies whatever a file system call threw. What nothing here knows is a `bug`: unclassified. */
export function folderFailure(what: string, thrown: unknown): Failure {
  if (thrown instanceof Failure) return thrown
  const error = coerceError(thrown)
  const code = (error as NodeJS.ErrnoException).code
  const kind = code === undefined ? 'bug' : (kindOfErrno[code] ?? 'bug')
  return new Failure(kind, `${what}: ${error.message}`, {
    ...(code === undefined ? {} : { code }),
    cause: error,
  })
}
