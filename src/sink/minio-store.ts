import http from 'node:http'
import https from 'node:https'
import { Client } from 'minio'
import { type Clock, systemClock } from '../foundation/clock.ts'
import { Failure } from '../foundation/failure.ts'
import { withDeadline } from './deadline.ts'
import { assertStorableKey, sha256Of } from './object-key.ts'
import type { ObjectStore, StoredObjectInfo } from './object-store.ts'
import { S3Answer, s3Failure } from './s3-failures.ts'
import { openS3Transport, type S3Transport } from './s3-transport.ts'

export interface MinioSettings {
  /** `http://host:port` or `https://…`; the scheme decides about TLS. */
  endpoint: URL
  bucket: string
  /** The region to sign for, `us-east-1` if undefined, which is also what MinIO takes when it was given none. */
  region: string | undefined
  accessKey: string
  secretKey: string
  /** For a put or get as a whole, the waiting for a socket included: 30,000. At most half the lease. */
  putTimeoutMs?: number
  /** For everything else, a page of a listing for example: 10,000. */
  requestTimeoutMs?: number
  /** How many requests may be under way at once; others wait for their turn: 16. */
  socketsMax?: number
  clock?: Clock
}

const checksumHeader = 'x-amz-meta-sluice-sha256'
const checksumMetadata = 'sluice-sha256'
/** Shorter than what MinIO (30 s) and the common balancers (60 s) keep an idle connection. */
const idleSocketMs = 20_000
const listPageKeys = 1000
/** Two creators of one bucket may get in each other's way more than once. */
const prepareTries = 3

/** An object store behind the S3 protocol: MinIO or S3 itself. Opens no connection before it is used. */
export function openMinioStore(settings: MinioSettings): ObjectStore {
  return new MinioStore(settings)
}

class MinioStore implements ObjectStore {
  readonly description: string
  readonly bucket: string
  readonly #region: string
  readonly #client: Client
  readonly #transport: S3Transport
  readonly #agent: http.Agent
  readonly #clock: Clock
  readonly #putTimeoutMs: number
  readonly #requestTimeoutMs: number
  readonly #closed = new AbortController()
  #bucketSeen = false

  constructor(settings: MinioSettings) {
    const { endpoint, bucket, region, accessKey, secretKey, socketsMax: maxSockets = 16 } = settings
    const tls = endpoint.protocol === 'https:'
    this.description = `minio ${endpoint.origin}/${bucket}`
    this.bucket = bucket
    this.#region = region ?? 'us-east-1'
    this.#clock = settings.clock ?? systemClock
    this.#putTimeoutMs = settings.putTimeoutMs ?? 30_000
    this.#requestTimeoutMs = settings.requestTimeoutMs ?? 10_000
    this.#agent = new (tls ? https : http).Agent({ keepAlive: true, maxSockets, timeout: idleSocketMs })
    this.#transport = openS3Transport(tls ? 'https:' : 'http:')
    this.#client = new Client({
      endPoint: endpoint.hostname.replace(/^\[|\]$/g, ''),
      ...(endpoint.port === '' ? {} : { port: Number(endpoint.port) }),
      useSSL: tls,
      region: this.#region,
      accessKey,
      secretKey,
      transport: this.#transport,
      transportAgent: this.#agent,
      retryOptions: { disableRetry: true },
    })
    // Over TLS the library would leave the body unsigned and send an MD5 instead. The SHA-256 is at hand anyway.
    this.#client.enableSHA256 = true
  }

  prepare(signal?: AbortSignal): Promise<void> {
    return this.#call('prepare the bucket', this.#requestTimeoutMs, signal, () => this.#ensureBucket())
  }

  /**
   * Prepares the bucket first unless it is known to be there, so that one that was deleted meanwhile comes back with
   * the next try.
   *
   * The object carries its SHA-256 as metadata, and the server compares it with the bytes that came
   * (`x-amz-content-sha256`). `putObject` of the library would hash every body again, twice: 6.8 ms of CPU a MiB
   * against 2.4 ms. It would also cut bodies over 64 MiB into parts, for which `If-None-Match` does not hold.
   */
  put(key: string, body: Buffer, checksum: string, signal?: AbortSignal): Promise<void> {
    return this.#call(`put ${key}`, this.#putTimeoutMs, signal, async () => {
      assertStorableKey(key)
      const sha256 = sha256Of(checksum)
      if (!this.#bucketSeen) await this.#ensureBucket()
      const headers = {
        'content-length': body.length,
        'content-type': key.endsWith('.gz') ? 'application/gzip' : 'application/x-protobuf',
        'if-none-match': '*',
        [checksumHeader]: sha256,
      }
      try {
        const response = await this.#client.makeRequestStreamAsync(
          { method: 'PUT', bucketName: this.bucket, objectName: key, headers },
          body,
          sha256,
          [200],
          this.#region,
        )
        await drain(response)
      } catch (thrown) {
        if (codeOf(thrown) !== 'PreconditionFailed') throw thrown
        await this.#confirm(key, body, checksum)
      }
    })
  }

  get(
    key: string,
    range?: { start: number; end: number },
    signal?: AbortSignal,
  ): Promise<Buffer | undefined> {
    return this.#call(`get ${key}`, this.#putTimeoutMs, signal, async () => {
      assertStorableKey(key)
      const { start, end } = range ?? { start: 0, end: undefined }
      if (end !== undefined && end <= start) {
        return (await this.#statOrAbsent(key)) === undefined ? undefined : Buffer.alloc(0)
      }
      try {
        const length = end === undefined ? 0 : end - start
        return await drain(await this.#client.getPartialObject(this.bucket, key, start, length))
      } catch (thrown) {
        const code = codeOf(thrown)
        if (code === 'NoSuchKey') return undefined
        if (code === 'InvalidRange') return Buffer.alloc(0)
        throw thrown
      }
    })
  }

  stat(key: string, signal?: AbortSignal): Promise<StoredObjectInfo | undefined> {
    return this.#call(`stat ${key}`, this.#requestTimeoutMs, signal, async () => {
      assertStorableKey(key)
      return await this.#statOrAbsent(key)
    })
  }

  remove(key: string, signal?: AbortSignal): Promise<void> {
    return this.#call(`remove ${key}`, this.#requestTimeoutMs, signal, async () => {
      assertStorableKey(key)
      await this.#client.removeObject(this.bucket, key)
    })
  }

  /**
   * A name that is nothing but a number comes back as that number (`0x1f` as `31`): the library reads it so. Names of
   * our pattern have letters; no other name that was only listed may be acted on.
   */
  async *list(prefix: string, signal?: AbortSignal): AsyncGenerator<StoredObjectInfo> {
    let token = ''
    do {
      const page = await this.#call(`list ${prefix}`, this.#requestTimeoutMs, signal, () =>
        this.#client.listObjectsV2Query(this.bucket, prefix, token, '', listPageKeys, ''),
      )
      for (const { name, size, lastModified } of page.objects) {
        if (name === undefined || lastModified === undefined) continue
        yield { key: name, bytes: size, checksum: undefined, modifiedAt: lastModified }
      }
      // The library reads a token of digits as a number and then refuses it.
      const next = page.isTruncated ? String(page.nextContinuationToken) : ''
      if (next !== '' && next === token) {
        throw new Failure('bug', `list ${prefix}: the store answers the same page again`)
      }
      token = next
    } while (token !== '')
  }

  close(): Promise<void> {
    this.#closed.abort(new Error('the store is closed'))
    this.#agent.destroy()
    return Promise.resolve()
  }

  async #ensureBucket(): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      try {
        if (!(await this.#isBucketThere())) await this.#client.makeBucket(this.bucket, this.#region)
        this.#bucketSeen = true
        return
      } catch (thrown) {
        // The name is taken, by another creator or by a stranger; looking again tells which.
        const code = codeOf(thrown)
        const taken = ['BucketAlreadyExists', 'BucketAlreadyOwnedByYou', 'OperationAborted'].includes(
          code ?? '',
        )
        if (!taken || tries === prepareTries) throw thrown
      }
    }
  }

  /** Asked a second time, as a listing, where it is refused: the answer to a HEAD has no body that says why. */
  async #isBucketThere(): Promise<boolean> {
    try {
      return await this.#client.bucketExists(this.bucket)
    } catch (thrown) {
      if (codeOf(thrown) !== 'Http403') throw thrown
    }
    const asked = { method: 'GET', bucketName: this.bucket, query: 'list-type=2&max-keys=1' }
    await drain(await this.#client.makeRequestAsync(asked, '', [200], this.#region))
    return true
  }

  /**
   * The key is taken. The same object means that the answer to an earlier put was lost. One that is gone again by now
   * says nothing: the put is tried again later.
   */
  async #confirm(key: string, body: Buffer, checksum: string): Promise<void> {
    const stored = await this.#statOrAbsent(key)
    if (stored === undefined) {
      throw new Failure('outage', `put ${key}: the key was taken and then was not`, {
        code: 'PreconditionFailed',
      })
    }
    if (stored.bytes === body.length && stored.checksum === checksum) return
    throw new Failure(
      'data',
      `put ${key}: another object has this key (${stored.bytes} bytes, ${stored.checksum ?? 'no checksum'}; ` +
        `ours: ${body.length} bytes, ${checksum})`,
      { code: 'PreconditionFailed' },
    )
  }

  async #statOrAbsent(key: string): Promise<StoredObjectInfo | undefined> {
    try {
      const { size, lastModified, metaData } = await this.#client.statObject(this.bucket, key)
      const sha256: unknown = metaData[checksumMetadata]
      return {
        key,
        bytes: size,
        checksum: typeof sha256 === 'string' ? `sha256:${sha256}` : undefined,
        modifiedAt: lastModified,
      }
    } catch (thrown) {
      const code = codeOf(thrown)
      if (code === 'NoSuchKey' || code === 'NotFound') return undefined
      throw thrown
    }
  }

  async #call<T>(
    what: string,
    timeoutMs: number,
    signal: AbortSignal | undefined,
    work: () => Promise<T>,
  ): Promise<T> {
    const deadline = { clock: this.#clock, timeoutMs, signals: [this.#closed.signal, signal] }
    try {
      return await withDeadline(what, deadline, (inner) => this.#transport.run(inner, work))
    } catch (thrown) {
      if (codeOf(thrown) === 'NoSuchBucket') this.#bucketSeen = false
      throw s3Failure(what, thrown)
    }
  }
}

function codeOf(thrown: unknown): string | undefined {
  return thrown instanceof S3Answer ? thrown.code : undefined
}

/** Reads a body to its end, as it must be before its socket can carry the next request. */
async function drain(response: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk)
  const [only] = chunks
  return only !== undefined && chunks.length === 1 ? only : Buffer.concat(chunks)
}
