import { bytes, decimal, integer, oneOf } from '../foundation/setting.ts'

/** When the queue counts as full, and what happens then. */
export const queueSettings = {
  STAGING_MAX_BACKLOG: integer({
    default: 1000,
    min: 1,
    max: 100_000_000,
    unit: 'requests',
    about:
      'How many requests may wait in the queue before OVERFLOW_POLICY acts; each process counts for itself, several times a second.',
  }),
  STAGING_MAX_BYTES: bytes({
    default: 4 * 1024 ** 3,
    min: 1024 ** 2,
    about: 'How many bytes may wait in the queue before OVERFLOW_POLICY acts.',
  }),
  OVERFLOW_POLICY: oneOf({
    choices: ['reject', 'drop', 'sample'],
    default: 'reject',
    about:
      'What happens to a request when the queue is full: reject answers 429, drop throws it away, sample keeps a share.',
  }),
  OVERFLOW_SAMPLE_RATE: decimal({
    default: 0.1,
    min: 0,
    max: 1,
    about: 'The share of requests that OVERFLOW_POLICY=sample keeps, up to twice the limits.',
  }),
}
