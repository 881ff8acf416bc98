import type { Counts } from '../../telemetry/merge-metrics.ts'
import type { Doors } from '../start-ingress.ts'

/** What a process needs to take OTLP that it cannot read from its settings. */
export interface Begin {
  /** The database with its password, which an embedded server has made up. */
  readonly databaseUrl: string
  readonly ports: Ports
}

/** The ports as the settings name them, 0 for any free one. */
export interface Ports {
  readonly HTTP_PORT: number
  readonly GRPC_PORT: number
}

/** What the supervisor tells one of its processes. */
export type Order =
  | { readonly kind: 'begin'; readonly begin: Begin }
  | { readonly kind: 'count' | 'reload' | 'stop' }

/** What one of them answers. */
export type Report =
  | { readonly kind: 'serving'; readonly doors: Doors }
  | { readonly kind: 'counted'; readonly counts: Counts }

/** The variable that tells a process which one it is, from 1 on. */
export const PROCESS_NUMBER = 'SLUICE_PROCESS'
