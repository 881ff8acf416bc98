import { coerceError, Failure, type FailureKind } from '../foundation/failure.ts'

/** An answer of the object store that is not a success. `code` is S3's, or made from the status if there is none. */
export class S3Answer extends Error {
  readonly status: number
  readonly code: string

  constructor(status: number, code: string, message: string) {
    super(message)
    this.name = 'S3Answer'
    this.status = status
    this.code = code
  }
}

/**
 * S3 error codes (Amazon S3 API Reference, "Error responses"; MinIO's own begin with XMinio). A code that is not
 * here is judged by its HTTP status.
 */
const kindOfCode: Readonly<Record<string, FailureKind>> = {
  // Somebody has to wait, or to make room, or to set a clock: the rows are not to blame.
  BadDigest: 'outage',
  ConditionalRequestConflict: 'outage',
  IncompleteBody: 'outage',
  InternalError: 'outage',
  NoSuchBucket: 'outage',
  OperationAborted: 'outage',
  RequestTimeTooSkewed: 'outage',
  RequestTimeout: 'outage',
  ServiceUnavailable: 'outage',
  SlowDown: 'outage',
  XAmzContentSHA256Mismatch: 'outage',
  XMinioAdminBucketQuotaExceeded: 'outage',
  XMinioServerNotInitialized: 'outage',
  XMinioStorageFull: 'outage',
  // An operator has to change a setting or a permission.
  AccessDenied: 'configuration',
  AccountProblem: 'configuration',
  AllAccessDisabled: 'configuration',
  AuthorizationHeaderMalformed: 'configuration',
  BucketAlreadyExists: 'configuration',
  ExpiredToken: 'configuration',
  IllegalLocationConstraintException: 'configuration',
  InvalidAccessKeyId: 'configuration',
  InvalidBucketName: 'configuration',
  InvalidLocationConstraint: 'configuration',
  InvalidRegion: 'configuration',
  InvalidToken: 'configuration',
  NotImplemented: 'configuration',
  NotSignedUp: 'configuration',
  PermanentRedirect: 'configuration',
  SignatureDoesNotMatch: 'configuration',
  TooManyBuckets: 'configuration',
  // These bytes under this name will never be taken.
  EntityTooLarge: 'data',
  EntityTooSmall: 'data',
  // Names are ours, made of the prefix and the batch: no request is to blame for one.
  InvalidObjectName: 'configuration',
  KeyTooLongError: 'configuration',
  PreconditionFailed: 'data',
  XMinioInvalidObjectName: 'configuration',
  XMinioObjectExistsAsDirectory: 'data',
  XMinioParentIsObject: 'data',
}

/** What the connection itself says: errno names, DNS and TLS codes. */
const kindOfConnection: Readonly<Record<string, FailureKind>> = {
  CERT_HAS_EXPIRED: 'configuration',
  CERT_NOT_YET_VALID: 'configuration',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'configuration',
  EAI_AGAIN: 'outage',
  EADDRNOTAVAIL: 'outage',
  ECONNABORTED: 'outage',
  ECONNREFUSED: 'outage',
  ECONNRESET: 'outage',
  EHOSTDOWN: 'outage',
  EHOSTUNREACH: 'outage',
  EMFILE: 'outage',
  ENETDOWN: 'outage',
  ENETUNREACH: 'outage',
  ENFILE: 'outage',
  ENOBUFS: 'outage',
  ENOTFOUND: 'outage',
  EPIPE: 'outage',
  EPROTO: 'configuration',
  ERR_SSL_WRONG_VERSION_NUMBER: 'configuration',
  ERR_STREAM_PREMATURE_CLOSE: 'outage',
  ERR_TLS_CERT_ALTNAME_INVALID: 'configuration',
  ETIMEDOUT: 'outage',
  SELF_SIGNED_CERT_IN_CHAIN: 'configuration',
  UNABLE_TO_GET_ISSUER_CERT: 'configuration',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'configuration',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'configuration',
}

function kindOfStatus(status: number): FailureKind {
  if (status >= 500 || [408, 409, 425, 429, 499].includes(status)) return 'outage'
  if (status === 401 || status === 403 || (status >= 300 && status < 400)) return 'configuration'
  // A proxy in front of the store that takes only so much.
  return status === 413 ? 'data' : 'bug'
}

/** Classifies whatever went wrong at an S3 store. What nothing here knows is a `bug`: unclassified. */
export function s3Failure(what: string, thrown: unknown): Failure {
  if (thrown instanceof Failure) return thrown
  const error = coerceError(thrown)
  if (error instanceof S3Answer) {
    const { status, code } = error
    const kind = kindOfCode[code] ?? kindOfStatus(status)
    return new Failure(kind, `${what}: ${status} ${code}: ${error.message}`, { code, cause: error })
  }
  const code = (error as NodeJS.ErrnoException).code ?? ''
  // HPE_…: what answered does not speak HTTP, or was cut off in the middle of it.
  const kind = kindOfConnection[code] ?? (code.startsWith('HPE_') ? 'outage' : 'bug')
  const message = error.message === '' ? code : error.message
  return new Failure(kind, `${what}: ${message}`, { ...(code === '' ? {} : { code }), cause: error })
}
