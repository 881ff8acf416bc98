import { integer, oneOf } from '../foundation/setting.ts'
import { logLevels } from './log.ts'

/** What the process says, and how long it takes its leave. */
export const telemetrySettings = {
  LOG_LEVEL: oneOf({
    choices: logLevels,
    default: 'info',
    // OTEL_LOG_LEVEL is also read by the SDKs, which know these words; theirs must not stop us.
    synonyms: {
      all: 'debug',
      trace: 'debug',
      verbose: 'debug',
      warning: 'warn',
      fatal: 'error',
      none: 'silent',
      off: 'silent',
    },
    about: 'The least important lines that are logged.',
  }),
  SHUTDOWN_GRACE_SECONDS: integer({
    default: 30,
    min: 0,
    max: 3600,
    unit: 'seconds',
    about:
      'How long a stop may take to answer and store what is in hand; what is left then waits for its lease to run out.',
  }),
}
