import type { Batch } from '../queue/batch.ts'

/** A batch in this process's hands. */
export interface HeldBatch {
  readonly batch: Batch
  /** Aborts when the lease is somebody else's, or cannot be trusted any more. */
  readonly lost: AbortController
  /** Monotonic milliseconds until which the lease holds for certain: renewal began + lease − margin. */
  trustedUntilMs: number
}
