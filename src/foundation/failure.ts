/**
 * What kind of thing went wrong, decided once, where the error is first understood.
 *
 * - `outage`: somebody we depend on is away or overloaded. Nobody's fault, retried for ever.
 * - `data`: these bytes will never be taken. Split until the culprit is alone, then buried.
 * - `configuration`: an operator has to change something (credentials, a missing permission).
 * - `client`: the sender of a request is at fault and is told so.
 * - `bug`: nobody classified it. Logged at error.
 */
export type FailureKind = 'outage' | 'data' | 'configuration' | 'client' | 'bug'

/** An error that has been classified. `code` is the SQLSTATE, S3 code or errno that it was classified by. */
export class Failure extends Error {
  readonly kind: FailureKind
  readonly code: string | undefined
  /** For `configuration`: a sentence that tells an operator what to change. */
  readonly fix: string | undefined

  constructor(
    kind: FailureKind,
    message: string,
    options: { code?: string | undefined; fix?: string | undefined; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'Failure'
    this.kind = kind
    this.code = options.code
    this.fix = options.fix
  }

  /** What happened and, if it is known, what an operator has to change. */
  get sentence(): string {
    return this.fix === undefined ? this.message : `${this.message}. ${this.fix}`
  }
}

/** Turns whatever was thrown into an Error. */
export function coerceError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown), { cause: thrown })
}

/** Whatever was thrown as a Failure: itself if it is one, else a `bug` that carries it as its cause. */
export function asFailure(thrown: unknown): Failure {
  if (thrown instanceof Failure) return thrown
  const error = coerceError(thrown)
  return new Failure('bug', error.message, { cause: error })
}

/** Throws unless `holds`: a broken invariant is a bug and must stop at its cause. */
export function invariant(holds: unknown, message: string): asserts holds {
  if (!holds) throw new Error(`invariant broken: ${message}`)
}
