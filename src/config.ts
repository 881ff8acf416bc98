import { type Environment, type Parsed, parseSettings, type SettingsRule } from './foundation/setting.ts'
import { GROWTH_MAX, ingressRules, ingressSettings } from './ingress/settings.ts'
import { postgresSettings } from './postgres/settings.ts'
import { queueSettings } from './queue/settings.ts'
import { relayRules, relaySettings } from './relay/settings.ts'
import { sinkRules, sinkSettings } from './sink/settings.ts'
import { telemetrySettings } from './telemetry/settings.ts'

/** The settings of each part, in the direction of the data. `docs/configuration.md` is generated from them. */
export const settingsByPart = {
  Ingress: ingressSettings,
  Queue: queueSettings,
  Workers: relaySettings,
  'Object store': sinkSettings,
  PostgreSQL: postgresSettings,
  Process: telemetrySettings,
}

const declaration = {
  ...ingressSettings,
  ...queueSettings,
  ...relaySettings,
  ...sinkSettings,
  ...postgresSettings,
  ...telemetrySettings,
}

/** The values of all settings. */
export type Config = Parsed<typeof declaration>

/** What the connections of all processes to the embedded server, of which it takes 100, leave for these two settings. */
const EMBEDDED_CONNECTIONS_MAX = 85

/** Rules over settings of several parts. */
const rulesBetweenParts: readonly SettingsRule<typeof declaration>[] = [
  {
    names: ['MAX_BODY_BYTES', 'STAGING_MAX_BYTES'],
    rule: `STAGING_MAX_BYTES must be at least ${GROWTH_MAX} times MAX_BODY_BYTES, to which JSON can grow: the largest request would be told to come again for ever`,
    holds: (values) => GROWTH_MAX * values.MAX_BODY_BYTES <= values.STAGING_MAX_BYTES,
  },
  {
    names: ['PROCESSES', 'WORKER_COUNT', 'DATABASE_URL'],
    rule: `without DATABASE_URL, WORKER_COUNT and three times PROCESSES must be at most ${EMBEDDED_CONNECTIONS_MAX}: each opens connections, and the embedded PostgreSQL takes 100`,
    holds: ({ PROCESSES, WORKER_COUNT, DATABASE_URL }) =>
      DATABASE_URL !== undefined || WORKER_COUNT + 3 * PROCESSES <= EMBEDDED_CONNECTIONS_MAX,
  },
]

/** Rules over several settings. */
export const settingsRules = [...ingressRules, ...relayRules, ...sinkRules, ...rulesBetweenParts]

/**
 * Reads every setting from the environment.
 *
 * @returns the values, and a sentence for each variable that looks like a misspelt setting.
 * @throws SettingsError that names every fault at once.
 */
export function readConfig(environment: Environment): { config: Config; warnings: string[] } {
  const { values, warnings } = parseSettings(declaration, environment, settingsRules)
  return { config: values, warnings }
}
