import type { Config } from '../config.ts'
import type { ListeningAddress } from '../ingress/listening.ts'
import { type DatabaseLocation, describeLocation } from '../postgres/location.ts'
import type { ObjectStore } from '../sink/object-store.ts'
import type { Log } from '../telemetry/log.ts'
import type { Role } from './program.ts'
import type { Doors } from './start-ingress.ts'

export interface Announcement {
  config: Config
  role: Role
  guide: boolean
  location: DatabaseLocation
  store: ObjectStore
  doors: Doors | undefined
  admin: ListeningAddress
  log: Log
}

/** Says once, when everything listens, where to send and where to look. */
export function announce({ config, role, guide, location, store, doors, admin, log }: Announcement): void {
  const url = ({ host, port }: ListeningAddress, scheme = 'http') =>
    `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}`
  const scheme = config.TLS_CERT_FILE === undefined ? 'http' : 'https'
  const sendTo = doors && url(doors.http, scheme)
  const sendToGrpc = doors && url(doors.grpc, scheme)
  const socket = doors && config.HTTP_SOCKET
  const lookAt = url(admin)
  const database = describeLocation(location)
  log.info('started', {
    role,
    ...(config.PROCESSES > 1 && doors && { processes: config.PROCESSES }),
    otlp_http: sendTo,
    otlp_grpc: sendToGrpc,
    otlp_http_socket: socket,
    admin: lookAt,
    database,
    store: store.description,
  })
  if (!guide) return
  const lines = [
    '',
    ...(sendTo === undefined
      ? []
      : [
          `  Send OTLP to   ${sendTo}  (HTTP; OTEL_EXPORTER_OTLP_ENDPOINT=${sendTo})`,
          `                 ${sendToGrpc}  (gRPC)`,
        ]),
    ...(socket === undefined ? [] : [`                 ${socket}  (HTTP on a Unix socket)`]),
    `  Objects        ${store.description}`,
    `  Database       ${database}`,
    `  Health         ${lookAt}/health`,
    `  Metrics        ${lookAt}/metrics`,
    `  One trace      ${lookAt}/api/v1/traces/TRACE_ID`,
    ...(config.DATABASE_URL === undefined ? [`  Everything is kept in ${config.DATA_DIR}.`] : []),
    '  Ctrl-C stops and drains.',
    '',
  ]
  process.stderr.write(`${lines.join('\n')}\n`)
}
