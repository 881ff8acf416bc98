/** What a store says about an object that it has. */
export interface StoredObjectInfo {
  key: string
  bytes: number
  /**
   * `sha256:` and 64 hex digits, as given at the put; undefined for an object that was not put by us, and in a
   * listing, where it would cost a request or a whole read for each object.
   */
  checksum: string | undefined
  modifiedAt: Date
}

/**
 * Where objects go: a bucket or a folder. One conformance suite (`test/sink/conformance.ts`) holds for both.
 *
 * Every method throws a classified `Failure`, honours its `signal`, and has a deadline of its own even without one.
 */
export interface ObjectStore {
  /** `minio` or `folder`, with where it is: for logs and health. Holds no secret. */
  readonly description: string
  /** The bucket's name, or the folder's path. */
  readonly bucket: string
  /** Creates the bucket or folder if it is absent. */
  prepare(signal?: AbortSignal): Promise<void>
  /**
   * Puts an object that nobody has put before. An object with the same key, size and checksum is success (the
   * answer to an earlier put was lost); one that differs is a `data` failure and is left untouched.
   */
  put(key: string, body: Buffer, checksum: string, signal?: AbortSignal): Promise<void>
  /**
   * The bytes from `start` up to and not including `end`, fewer where the object ends before; the whole object
   * without a range. Undefined if absent.
   */
  get(key: string, range?: { start: number; end: number }, signal?: AbortSignal): Promise<Buffer | undefined>
  /** Undefined if absent. */
  stat(key: string, signal?: AbortSignal): Promise<StoredObjectInfo | undefined>
  /** Deletes one object; an absent one is success. */
  remove(key: string, signal?: AbortSignal): Promise<void>
  /** Every object below `prefix`, in no promised order. */
  list(prefix: string, signal?: AbortSignal): AsyncIterable<StoredObjectInfo>
  close(): Promise<void>
}
