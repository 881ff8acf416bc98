import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { databaseUrlWithPassword, describeLocation, parseDatabaseUrl } from '../../src/postgres/location.ts'

function plain(url: string) {
  const { password, ...rest } = parseDatabaseUrl(url)
  return { ...rest, password: password?.reveal() }
}

const tls = { mode: 'disable', rootCertificate: undefined, certificate: undefined, key: undefined }

test.each([
  ['postgres://u:p@h/d', { host: 'h', port: 5432, database: 'd', user: 'u', password: 'p', tls }],
  ['postgresql://u@h:6543', { host: 'h', port: 6543, database: 'u', user: 'u', password: undefined, tls }],
  [
    'postgres://u:p%40%2F%3A@h/a%20b',
    { host: 'h', port: 5432, database: 'a b', user: 'u', password: 'p@/:', tls },
  ],
  ['postgres://u@[::1]:7/d', { host: '::1', port: 7, database: 'd', user: 'u', password: undefined, tls }],
  [
    'postgres://u:p@%2Frun%2Fpostgresql/d',
    { host: '/run/postgresql', port: 5432, database: 'd', user: 'u', password: 'p', tls },
  ],
  [
    'postgres://localhost/d?host=/run/x&port=5433&user=u&password=p&sslmode=require',
    { host: '/run/x', port: 5433, database: 'd', user: 'u', password: 'p', tls },
  ],
  [
    'postgres://u@h/d?sslmode=verify-ca&sslrootcert=/ca.pem&sslcert=/c.pem&sslkey=/k.pem&connect_timeout=3',
    {
      host: 'h',
      port: 5432,
      database: 'd',
      user: 'u',
      password: undefined,
      tls: { mode: 'verify-ca', rootCertificate: '/ca.pem', certificate: '/c.pem', key: '/k.pem' },
    },
  ],
  [
    'postgres://u@h/d?sslrootcert=system',
    {
      host: 'h',
      port: 5432,
      database: 'd',
      user: 'u',
      password: undefined,
      tls: { ...tls, mode: 'verify-full', rootCertificate: 'system' },
    },
  ],
])('%s is understood, and written as a URL again means the same', (url, expected) => {
  expect(plain(url)).toEqual(expected)
  expect(plain(databaseUrlWithPassword(parseDatabaseUrl(url)))).toEqual(expected)
})

test.each([
  ['mysql://u:geheim@h/d', 'DATABASE_URL is not a URL that starts with postgres:// or postgresql://.'],
  [
    'postgres://u:geheim@a,b/d',
    'DATABASE_URL names several hosts; name one, or a name that always leads to the primary.',
  ],
  ['postgres://h/d', 'DATABASE_URL names no user.'],
  ['postgres://u:ge%heim@h/d', 'DATABASE_URL has a % that does not begin a percent-encoded byte.'],
  [
    'postgres://u:geheim@h/d?sslmode=maybe',
    'DATABASE_URL has sslmode=maybe; it must be one of disable, allow, prefer, require, verify-ca, verify-full.',
  ],
  [
    'postgres://u:geheim@h/d?pgbouncer=true',
    'DATABASE_URL has the parameter pgbouncer, which Sluice does not understand; it knows host, port, user, password, ' +
      'dbname, sslmode, sslrootcert, sslcert, sslkey.',
  ],
  ['postgres://u:geheim@h/d?port=0', 'DATABASE_URL has a port outside 1 to 65535.'],
])('%s is refused in a sentence that does not hold the password', (url, sentence) => {
  expect(() => parseDatabaseUrl(url)).toThrow(new Failure('configuration', sentence))
})

test('a location shows its password nowhere but where it is asked for', () => {
  const location = parseDatabaseUrl('postgres://u:geheim@h/d')
  const shown = [
    inspect(location),
    JSON.stringify(location),
    String(location.password),
    describeLocation(location),
  ]
  expect(shown.filter((text) => text.includes('geheim'))).toEqual([])
  expect(describeLocation(location)).toBe('u@h:5432/d')
  expect(describeLocation(parseDatabaseUrl('postgres://u@%2Frun/d'))).toBe('u@/run/.s.PGSQL.5432/d')
})
