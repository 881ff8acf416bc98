import type { PostgresType } from 'postgres'

/** OIDs of array types in pg_type.dat of the server's source; they never change. */
const BOOL_ARRAY = 1000
const INT2_ARRAY = 1005
const INT4_ARRAY = 1007
const TEXT_ARRAY = 1009
const INT8_ARRAY = 1016
const UUID_ARRAY = 2951
const TIMESTAMPTZ_ARRAY = 1185

type Element = string | number | bigint | boolean | Date

/**
 * One-dimensional arrays of the types that Sluice's tables use. postgres.js would ask the server for them on each new
 * connection.
 */
export const arrayTypes = {
  booleans: arrayType(BOOL_ARRAY, (text) => text === 't'),
  smallints: arrayType(INT2_ARRAY, Number),
  integers: arrayType(INT4_ARRAY, Number),
  bigints: arrayType(INT8_ARRAY, BigInt),
  texts: arrayType(TEXT_ARRAY, (text) => text),
  uuids: arrayType(UUID_ARRAY, (text) => text),
  timestamps: arrayType(TIMESTAMPTZ_ARRAY, (text) => new Date(text)),
}

function arrayType<T extends Element>(
  oid: number,
  element: (text: string) => T,
): PostgresType<readonly (T | null)[]> {
  return {
    to: oid,
    from: [oid],
    serialize: (values: readonly (T | null)[] | string) =>
      typeof values === 'string' ? values : `{${values.map(quoted).join(',')}}`,
    parse: (text: string) => elements(text).map((item) => (item === null ? null : element(item))),
  }
}

function quoted(value: Element | null): string {
  if (value === null) return 'NULL'
  const text = value instanceof Date ? value.toISOString() : String(value)
  return `"${text.replaceAll(/["\\]/g, '\\$&')}"`
}

/** The elements of an array literal (PostgreSQL documentation, 8.15.6 "Array Input and Output Syntax"). */
function elements(literal: string): (string | null)[] {
  const found: (string | null)[] = []
  for (const [, inQuotes, plain] of literal.slice(1, -1).matchAll(/"((?:[^"\\]|\\.)*)"|([^,]+)/gs)) {
    if (inQuotes !== undefined) found.push(inQuotes.replaceAll(/\\(.)/gs, '$1'))
    else found.push(plain === undefined || plain === 'NULL' ? null : plain)
  }
  return found
}
