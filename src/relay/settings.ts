import { bytes, integer, type SettingsRule } from '../foundation/setting.ts'

/** How the workers claim, write and retry. */
export const relaySettings = {
  PROCESSING_QUEUE_MAX_DEPTH: integer({
    default: 100,
    min: 1,
    max: 100_000,
    unit: 'requests',
    about: 'How many claimed requests a process holds in memory; when it is full, polling pauses.',
  }),
  PROCESSING_QUEUE_MAX_BYTES: bytes({
    default: 64 * 1024 ** 2,
    min: 1024 ** 2,
    max: 1024 ** 3,
    about: 'How many claimed bytes a process holds in memory; when it is full, polling pauses.',
  }),
  BATCH_MAX_SIZE: integer({
    default: 25,
    min: 1,
    max: 10_000,
    unit: 'requests',
    about:
      'How many requests become one batch, and so one object for each tenant, signal and encoding among them.',
  }),
  BATCH_FLUSH_INTERVAL_MS: integer({
    default: 200,
    min: 0,
    max: 600_000,
    unit: 'milliseconds',
    about: 'How long the oldest request waits for its batch to fill.',
  }),
  WORKER_COUNT: integer({
    default: 2,
    min: 1,
    max: 64,
    unit: 'batches',
    about: 'How many batches a process writes at the same time.',
  }),
  LEASE_SECONDS: integer({
    default: 60,
    min: 2,
    max: 3600,
    unit: 'seconds',
    about:
      'How long a batch stays with a worker that says nothing more; a put may take half of it, and it is renewed at a third.',
  }),
  MAX_ATTEMPTS: integer({
    default: 8,
    min: 1,
    max: 1000,
    unit: 'attempts',
    about: 'How often a request that fails for its own data is tried before it moves to the dead letters.',
  }),
  RETRY_BASE_MS: integer({
    default: 1000,
    min: 1,
    max: 3_600_000,
    unit: 'milliseconds',
    about: 'How long the first retry of a batch waits; the wait doubles with each further one.',
  }),
  RETRY_MAX_MS: integer({
    default: 60_000,
    min: 1,
    max: 86_400_000,
    unit: 'milliseconds',
    about: 'The longest wait between two tries of a batch.',
  }),
  CIRCUIT_FAILURE_THRESHOLD: integer({
    default: 5,
    min: 1,
    max: 10_000,
    unit: 'batches',
    about:
      'After so many batches in a row that the object store did not take, nothing more is claimed for a while.',
  }),
  CIRCUIT_RESET_SECONDS: integer({
    default: 30,
    min: 1,
    max: 3600,
    unit: 'seconds',
    about: 'How long nothing is claimed then, before a single batch goes first.',
  }),
}

export const relayRules: readonly SettingsRule<typeof relaySettings>[] = [
  {
    names: ['BATCH_MAX_SIZE', 'PROCESSING_QUEUE_MAX_DEPTH'],
    rule: 'BATCH_MAX_SIZE must not be larger than PROCESSING_QUEUE_MAX_DEPTH: the buffer could never hold one batch',
    holds: (values) => values.BATCH_MAX_SIZE <= values.PROCESSING_QUEUE_MAX_DEPTH,
  },
  {
    names: ['RETRY_BASE_MS', 'RETRY_MAX_MS'],
    rule: 'RETRY_BASE_MS must not be larger than RETRY_MAX_MS',
    holds: (values) => values.RETRY_BASE_MS <= values.RETRY_MAX_MS,
  },
]
