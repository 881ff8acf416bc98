/** What a script can tell from the exit code; each command's `--help` lists them. */
export const exitCodes = {
  ok: 0,
  /** Something that the command needs is away, or a bug. */
  failed: 1,
  /** The command line or the settings are wrong. */
  usage: 2,
  /** What was asked for is not there. */
  notFound: 3,
  /** Something stored is missing, damaged or unreadable. */
  wrong: 4,
  /** Nothing is wrong, but there are objects that the database does not know. */
  unknown: 5,
} as const

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes]

export const exitCodesHelp = `
Exit codes: 0 done, 1 something needed is away or broken, 2 wrong usage or settings, 3 not found.`
