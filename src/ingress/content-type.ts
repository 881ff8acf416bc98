import type { Format } from '../otlp/answer.ts'

/** The media type of each format ("OTLP/HTTP Request"). */
export const mediaTypes: Record<Format, string> = {
  protobuf: 'application/x-protobuf',
  json: 'application/json',
}

/**
 * The format that a Content-Type names, in any case and with any parameters; undefined for none of ours
 * (RFC 9110, section 8.3.1).
 */
export function formatOf(contentType: string | undefined): Format | undefined {
  if (contentType === undefined) return undefined
  const end = contentType.indexOf(';')
  switch ((end === -1 ? contentType : contentType.slice(0, end)).trim().toLowerCase()) {
    case mediaTypes.protobuf:
      return 'protobuf'
    case mediaTypes.json:
      return 'json'
    default:
      return undefined
  }
}
