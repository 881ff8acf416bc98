/**
 * What the walk over a request saw, kept beside it as `ingestion_queue.summary` so that nothing behind the door
 * decodes a payload again.
 */
export interface Summary {
  /** Nanoseconds since 1970; undefined when no time between 1970 and 2262 was seen. */
  minTimeUnixNano: bigint | undefined
  maxTimeUnixNano: bigint | undefined
  /** Distinct `service.name` values in order of appearance: at most 64, each cut to 256 characters. */
  services: string[]
  /** `traceHash` of distinct trace ids of spans: at most 10,000. */
  traceHashes: bigint[]
  /** True when services or trace ids were left out because there were too many. */
  cut: boolean
}
