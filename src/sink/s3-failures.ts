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

/** What an answer means: nobody's fault, these bytes' fault, or what an operator has to change. */
type Cause = 'outage' | 'data' | { readonly fix: string }

const permission: Cause = {
  fix: 'Give S3_ACCESS_KEY the permissions s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject for the bucket, and s3:CreateBucket if it is not there.',
}
const credentials: Cause = { fix: 'Correct S3_ACCESS_KEY and S3_SECRET_KEY.' }
const temporaryKey: Cause = { fix: 'Give a key in S3_ACCESS_KEY that does not expire.' }
const region: Cause = { fix: 'Correct S3_REGION, or point S3_ENDPOINT at the region of the bucket.' }
const bucketName: Cause = { fix: 'Choose another S3_BUCKET.' }
const objectName: Cause = {
  fix: 'Shorten or simplify S3_PREFIX: with it, the store does not take the names of objects.',
}
const account: Cause = {
  fix: 'Look at the account at the provider of the object store: it is closed, unpaid or over a limit.',
}
const encryption: Cause = {
  fix: 'Correct the key for encryption in the settings of the bucket, or its permissions.',
}
const anotherServer: Cause = { fix: 'Correct S3_ENDPOINT: what answers there is not the object store.' }
const certificate: Cause = {
  fix: "Renew the store's certificate, or trust its authority with NODE_EXTRA_CA_CERTS.",
}

/**
 * S3 error codes (Amazon S3 API Reference, "Error responses"; MinIO's own begin with XMinio). A code that is not
 * here is judged by its HTTP status.
 */
const causeOfCode: Readonly<Record<string, Cause>> = {
  // Somebody has to wait, or to make room, or to set a clock: the rows are not to blame.
  BadDigest: 'outage',
  BandwidthLimitExceeded: 'outage',
  ClientDisconnected: 'outage',
  ConditionalRequestConflict: 'outage',
  IncompleteBody: 'outage',
  InternalError: 'outage',
  NoSuchBucket: 'outage',
  OperationAborted: 'outage',
  QuotaExceeded: 'outage',
  RequestLimitExceeded: 'outage',
  RequestTimeTooSkewed: 'outage',
  RequestTimeout: 'outage',
  ServiceUnavailable: 'outage',
  SlowDown: 'outage',
  SlowDownRead: 'outage',
  SlowDownWrite: 'outage',
  TemporaryRedirect: 'outage',
  Throttling: 'outage',
  ThrottlingException: 'outage',
  TooManyRequests: 'outage',
  XAmzContentSHA256Mismatch: 'outage',
  XMinioAdminBucketQuotaExceeded: 'outage',
  XMinioBackendDown: 'outage',
  XMinioServerNotInitialized: 'outage',
  XMinioStorageFull: 'outage',
  // An operator has to change a setting or a permission.
  AccessControlListNotSupported: permission,
  AccessDenied: permission,
  AccountProblem: account,
  AllAccessDisabled: account,
  AuthorizationHeaderMalformed: region,
  BucketAlreadyExists: bucketName,
  ExpiredToken: temporaryKey,
  IllegalLocationConstraintException: region,
  InvalidAccessKeyId: credentials,
  InvalidBucketName: bucketName,
  InvalidLocationConstraint: region,
  InvalidRegion: region,
  InvalidSecurity: credentials,
  InvalidToken: temporaryKey,
  'KMS.DisabledException': encryption,
  'KMS.NotFoundException': encryption,
  KMSNotConfigured: encryption,
  MethodNotAllowed: anotherServer,
  NotImplemented: {
    fix: 'Use an object store that knows PutObject with If-None-Match, or a newer release of it.',
  },
  NotSignedUp: account,
  PermanentRedirect: region,
  SignatureDoesNotMatch: credentials,
  TokenRefreshRequired: temporaryKey,
  TooManyBuckets: account,
  // Names are ours, made of the prefix and the batch: no request is to blame for one.
  InvalidObjectName: objectName,
  KeyTooLongError: objectName,
  XMinioInvalidObjectName: objectName,
  // These bytes under this name will never be taken.
  EntityTooLarge: 'data',
  EntityTooSmall: 'data',
  PreconditionFailed: 'data',
  XMinioObjectExistsAsDirectory: 'data',
  XMinioParentIsObject: 'data',
}

/** What the connection itself says: errno names, DNS and TLS codes. */
const causeOfConnection: Readonly<Record<string, Cause>> = {
  CERT_HAS_EXPIRED: certificate,
  CERT_NOT_YET_VALID: certificate,
  DEPTH_ZERO_SELF_SIGNED_CERT: certificate,
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
  EPROTO: { fix: 'Correct the scheme of S3_ENDPOINT: http:// or https://.' },
  ERR_SSL_WRONG_VERSION_NUMBER: { fix: 'Correct the scheme of S3_ENDPOINT: http:// or https://.' },
  ERR_STREAM_PREMATURE_CLOSE: 'outage',
  ERR_TLS_CERT_ALTNAME_INVALID: certificate,
  ETIMEDOUT: 'outage',
  SELF_SIGNED_CERT_IN_CHAIN: certificate,
  UNABLE_TO_GET_ISSUER_CERT: certificate,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: certificate,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: certificate,
}

function causeOfStatus(status: number): Cause | undefined {
  if (status >= 500 || [408, 409, 425, 429, 499].includes(status)) return 'outage'
  if (status === 401 || status === 403) return permission
  if (status >= 300 && status < 400) return anotherServer
  // A proxy in front of the store that takes only so much.
  return status === 413 ? 'data' : undefined
}

/** Classifies whatever went wrong at an S3 store. What nothing here knows is a `bug`: unclassified. */
export function s3Failure(what: string, thrown: unknown): Failure {
  if (thrown instanceof Failure) return thrown
  const error = coerceError(thrown)
  if (error instanceof S3Answer) {
    const { status, code } = error
    const { kind, fix } = judged(causeOfCode[code] ?? causeOfStatus(status))
    return new Failure(kind, `${what}: ${status} ${code}: ${error.message}`, { code, fix, cause: error })
  }
  const code = (error as NodeJS.ErrnoException).code ?? ''
  // HPE_…: what answered does not speak HTTP, or was cut off in the middle of it.
  const { kind, fix } = judged(causeOfConnection[code] ?? (code.startsWith('HPE_') ? 'outage' : undefined))
  const message = error.message === '' ? code : error.message
  return new Failure(kind, `${what}: ${message}`, { code: code === '' ? undefined : code, fix, cause: error })
}

function judged(cause: Cause | undefined): { kind: FailureKind; fix: string | undefined } {
  if (cause === undefined) return { kind: 'bug', fix: undefined }
  return typeof cause === 'string'
    ? { kind: cause, fix: undefined }
    : { kind: 'configuration', fix: cause.fix }
}
