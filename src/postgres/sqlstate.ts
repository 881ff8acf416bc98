import { coerceError, Failure, type FailureKind } from '../foundation/failure.ts'

interface Verdict {
  readonly kind: FailureKind
  /** Stands before the server's own words. */
  readonly reason: string
  readonly fix?: string
}

const outage = (reason: string): Verdict => ({ kind: 'outage', reason })
const data = (reason: string): Verdict => ({ kind: 'data', reason })
const configuration = (reason: string, fix: string): Verdict => ({ kind: 'configuration', reason, fix })

const fixOf = {
  grant: 'Grant the user of DATABASE_URL every right on the tables of its schema.',
  login: 'Correct the user and the password in DATABASE_URL, or pg_hba.conf of the server.',
  pooler: 'Use the session mode of the pooler, or connect to PostgreSQL directly.',
  restore: 'Look at the disk and the log of the server; rebuild the index, or restore a backup.',
  schema:
    'Point DATABASE_URL at the database that this version of Sluice has migrated, and undo changes to its tables.',
  certificate: 'Correct sslmode or sslrootcert in DATABASE_URL, or renew the certificate of the server.',
}

/**
 * SQLSTATE (PostgreSQL documentation, appendix A), by the longest prefix that is listed. What is not listed is a bug.
 */
const sqlStates: Readonly<Record<string, Verdict>> = {
  '08': outage('the connection to the database broke'),
  '0A000': outage('the database has changed under a prepared statement'),
  '22': data('the database refuses a value'),
  '22023': configuration('the database refuses a setting', 'Correct the parameters in DATABASE_URL.'),
  '23': data('the database refuses a row'),
  '25006': outage('the database takes no writes'),
  '25P03': outage('the database ended an idle transaction'),
  '25P04': outage('the database ended a long transaction'),
  '26': configuration('a prepared statement is gone, as behind a pooler in transaction mode', fixOf.pooler),
  '28': configuration('the database refuses the login', fixOf.login),
  '3D': configuration('there is no such database', 'Create it, or correct its name in DATABASE_URL.'),
  '3F': configuration('there is no such schema', 'Correct search_path of the user of DATABASE_URL.'),
  '40': outage('the database undid the transaction for the sake of another'),
  '42501': configuration('the database user lacks a permission', fixOf.grant),
  '42703': configuration('the database has another schema', fixOf.schema),
  '42704': configuration('the database has another schema', fixOf.schema),
  '42804': configuration('the database has another schema', fixOf.schema),
  '428C9': configuration('the database has another schema', fixOf.schema),
  '42883': configuration('the database has another schema', fixOf.schema),
  '42P01': configuration('the database has another schema', fixOf.schema),
  '42P05': configuration(
    'a prepared statement is there already, as behind a pooler in transaction mode',
    fixOf.pooler,
  ),
  '42P10': configuration('the database has another schema', fixOf.schema),
  '53': outage('the database is short of something'),
  '54': data('a row is over a limit of the database'),
  '55000': outage('the database is not in a state to do this'),
  '55006': outage('something in the database is in use'),
  '55P02': configuration(
    'a setting of the database cannot be changed by a session',
    'Correct the parameters in DATABASE_URL.',
  ),
  '55P03': outage('a lock in the database was not to be had'),
  '57014': outage('the database cancelled the statement'),
  '57P': outage('the database is stopping or starting'),
  '57P04': configuration('the database was dropped', 'Restore it, or point DATABASE_URL at another.'),
  '58': outage('the database server has trouble with its system'),
  '72': outage('a snapshot of the database is too old'),
  F0: configuration(
    'the database server has a configuration that it cannot use',
    'Correct its configuration file.',
  ),
  // Whatever row was touched is not to blame, and moving it away would not help the next.
  XX001: configuration('data of the database is damaged', fixOf.restore),
  XX002: configuration('an index of the database is damaged', fixOf.restore),
}

/** Errors of postgres.js, of Node.js's sockets and of its TLS. */
const connectionCodes: Readonly<Record<string, Verdict>> = {
  CONNECTION_CLOSED: outage('the connection to the database was closed'),
  CONNECTION_DESTROYED: outage('the connection to the database was given up'),
  CONNECTION_ENDED: outage('the connections to the database are closed'),
  CONNECT_TIMEOUT: outage('the database does not answer'),
  EACCES: configuration(
    'the socket of the database may not be entered',
    'Let the user of this process into its folder.',
  ),
  EADDRNOTAVAIL: outage('no way to the database'),
  EAI_AGAIN: outage('the name of the database host is not known right now'),
  ECONNABORTED: outage('the connection to the database broke'),
  ECONNREFUSED: outage('no database takes connections there'),
  ECONNRESET: outage('the connection to the database broke'),
  EHOSTDOWN: outage('no way to the database'),
  EHOSTUNREACH: outage('no way to the database'),
  EMFILE: outage('this process has too many open files'),
  ENETUNREACH: outage('no way to the database'),
  ENFILE: outage('this machine has too many open files'),
  ENOENT: outage('there is no socket of a database'),
  ENOTFOUND: outage('the name of the database host is not known'),
  EPIPE: outage('the connection to the database broke'),
  ETIMEDOUT: outage('the database does not answer'),
  ERR_STREAM_DESTROYED: outage('the connection to the database broke'),
  ERR_STREAM_PREMATURE_CLOSE: outage('the connection to the database broke'),
  ERR_TLS_CERT_ALTNAME_INVALID: configuration(
    "the database server's certificate is for another host",
    fixOf.certificate,
  ),
  CERT_HAS_EXPIRED: configuration("the database server's certificate has expired", fixOf.certificate),
  DEPTH_ZERO_SELF_SIGNED_CERT: configuration(
    "the database server's certificate is not trusted",
    fixOf.certificate,
  ),
  SELF_SIGNED_CERT_IN_CHAIN: configuration(
    "the database server's certificate is not trusted",
    fixOf.certificate,
  ),
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: configuration(
    "the database server's certificate is not trusted",
    fixOf.certificate,
  ),
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: configuration(
    "the database server's certificate is not trusted",
    fixOf.certificate,
  ),
  SASL_SIGNATURE_MISMATCH: configuration(
    'the server does not know the password either: it is not the database',
    'Correct the host in DATABASE_URL.',
  ),
}

interface ErrorFields {
  readonly code?: unknown
  readonly severity?: unknown
  readonly table_name?: unknown
  readonly constraint_name?: unknown
}

/**
 * Whatever a call of postgres.js threw as a `Failure`: itself if it is one already, else classified by its SQLSTATE
 * or error code, which `code` keeps, with the original as its cause. Constraint errors of `trace_index` that only
 * mean a missing partition are an `outage`; `isMissingPartition` knows them.
 */
export function classifyPostgresError(thrown: unknown): Failure {
  if (thrown instanceof Failure) return thrown
  const error = coerceError(thrown)
  const { code, severity } = error as ErrorFields
  if (typeof code !== 'string') return new Failure('bug', error.message, { cause: error })
  const verdict = verdictOf(code, severity !== undefined, error)
  // Node.js leaves the message of an error for several addresses empty.
  const message = error.message === '' ? code : error.message
  return new Failure(
    verdict?.kind ?? 'bug',
    verdict === undefined ? message : `${verdict.reason}: ${message}`,
    { code, fix: verdict?.fix, cause: error },
  )
}

function verdictOf(code: string, fromServer: boolean, error: Error): Verdict | undefined {
  if (!fromServer) return connectionCodes[code]
  if (isMissingPartition(error)) return outage('a partition of trace_index is missing')
  for (let length = code.length; length >= 2; length--) {
    const verdict = sqlStates[code.slice(0, length)]
    if (verdict !== undefined) return verdict
  }
  return undefined
}

/**
 * Whether a row found no partition of `trace_index`. PostgreSQL reports it as 23514, like a violated CHECK, but names
 * no constraint. Takes the error of postgres.js or the `Failure` made of it.
 */
export function isMissingPartition(thrown: unknown): boolean {
  const error = thrown instanceof Failure ? thrown.cause : thrown
  if (!(error instanceof Error)) return false
  const { code, table_name, constraint_name } = error as ErrorFields
  return code === '23514' && table_name === 'trace_index' && constraint_name === undefined
}
