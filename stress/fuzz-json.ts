import { type Field, type Message, requestMessages } from '../src/otlp/schema.ts'
import type { Signal } from '../src/otlp/signal.ts'
import { damageBytes } from './fuzz-bytes.ts'
import type { SeededRandom } from './seeded-random.ts'

const tokens = /"(?:[^"\\]|\\.)*"|[-+.0-9a-zA-Z]+|\s+|[^\s]/g

const numbers = [
  ...[
    '0',
    '-0',
    '-1',
    '1e3',
    '1E+3',
    '1.0',
    '1.5',
    '1e-3',
    '0.1',
    '00',
    '+1',
    '.5',
    '5.',
    '1e',
    '--1',
    '0x10',
  ],
  ...['127', '128', '2147483647', '2147483648', '-2147483648', '-2147483649', '4294967295', '4294967296'],
  ...['9007199254740993', '9223372036854775807', '9223372036854775808', '-9223372036854775808'],
  ...['18446744073709551615', '18446744073709551616', '1e400', '-1e400', '5e-324', '1e-400', '1e19', '1e20'],
  ...[
    '1.7976931348623157e308',
    '123456789012345678901234567890',
    '10e-1',
    '100000000000000000000e-20',
    '1e99999999999',
  ],
]
const texts = [
  ...[
    '""',
    '"a"',
    '"NaN"',
    '"Infinity"',
    '"-Infinity"',
    '" 1"',
    '"1 "',
    '"1\\u0000"',
    '"\\u0031"',
    '"é"',
    '"\\u00e9"',
  ],
  ...[
    '"ok\\ud83d"',
    '"\\ude00\\ud83d"',
    '"\\ud83d\\ude00"',
    '"\\ud83d\\n"',
    '"\\u0000"',
    '"\\x41"',
    '"\\u12g4"',
    '"\t"',
    '"\\"',
  ],
  ...[
    '"AAAA"',
    '"AA=="',
    '"AA="',
    '"A"',
    '"_-8"',
    '"+/8="',
    '"00112233445566778899AABBCCDDEEFF"',
    '"0011223344556677"',
  ],
  ...[
    '"EREREREREREREREREREREQ=="',
    '"SPAN_KIND_SERVER"',
    '"service.name"',
    '"resourceSpans"',
    '"resource_spans"',
  ],
]
const others = [
  'null',
  'true',
  'false',
  'nul',
  'NaN',
  '{}',
  '[]',
  '[[]]',
  '[null]',
  '{"":0}',
  '{"a":',
  '[1,',
  '{,}',
  "'a'",
  '//',
]
const marks = ['{', '}', '[', ']', ',', ':', '"', '\\', ' ', '\n', '\u00a0', '\ufeff', '\u0000']

function anyToken(random: SeededRandom): string {
  const [first = '', ...rest] = random.pick<readonly string[]>([
    numbers,
    numbers,
    texts,
    texts,
    others,
    marks,
  ])
  const token = random.pick([first, ...rest])
  return numbers.includes(token) && random.chance(0.3) ? `"${token}"` : token
}

/** JSON with one to three of its tokens changed. */
function changeTokens(random: SeededRandom, json: string): string {
  const list = json.match(tokens) ?? []
  for (let left = random.between(1, 3); left > 0 && list.length > 0; left--) {
    const at = random.between(0, list.length - 1)
    switch (random.between(0, 5)) {
      case 0:
        list.splice(at, 1)
        break
      case 1:
        list.splice(at, 0, list[at] ?? '')
        break
      case 2:
        list.splice(at, 0, anyToken(random))
        break
      case 3:
        list[at] = list[random.between(0, list.length - 1)] ?? ''
        break
      default:
        list[at] = anyToken(random)
    }
  }
  return list.join('')
}

/** JSON with a value of its own kind replaced, so that it stays well-formed for the most part. */
function changeValues(random: SeededRandom, json: string): string {
  const list = json.match(tokens) ?? []
  const values = [...list.keys()].filter((at) => /^["-0-9a-z]/.test(list[at] ?? '') && list[at + 1] !== ':')
  for (let left = random.between(1, 2); left > 0 && values.length > 0; left--) {
    const at = values[random.between(0, values.length - 1)] ?? 0
    const text = list[at]?.startsWith('"')
    const [first = '', ...rest] = random.chance(0.2) ? others : text ? texts : numbers
    const chosen = random.pick([first, ...rest])
    list[at] = chosen
  }
  return list.join('')
}

/** JSON with an unknown member, or one of the members twice, somewhere. */
function addMember(random: SeededRandom, json: string): string {
  const braces = [...json.matchAll(/[{,]"/g)]
  const place = braces[random.between(0, Math.max(0, braces.length - 1))]?.index
  if (place === undefined) return json
  const depth = random.pick([1, 3, 50, 999, 1000, 1001])
  const nested = random.chance(0.5)
    ? '['.repeat(depth) + ']'.repeat(depth)
    : `${'{"":'.repeat(depth)}0${'}'.repeat(depth)}`
  const name = random.pick([
    '"x"',
    '""',
    '"kind"',
    '"name"',
    '"\\u006eame"',
    '"value"',
    '"resourceSpans"',
    '"timeUnixNano"',
  ])
  const value = random.chance(0.3) ? nested : anyToken(random)
  return `${json.slice(0, place + 1)}${name}:${value},${json.slice(place + 1)}`
}

const writings: readonly [
  (random: SeededRandom, json: string) => string,
  ...((random: SeededRandom, json: string) => string)[],
] = [changeTokens, changeTokens, changeValues, changeValues, changeValues, addMember]

/** A good request of OTLP JSON with something changed: its tokens, its values, or its bytes. */
export function changeJson(random: SeededRandom, json: Buffer): Buffer {
  if (random.chance(0.15)) return damageBytes(random, json)
  if (random.chance(0.02)) return Buffer.from(json.toString(), 'utf16le')
  const changed = random.pick(writings)(random, json.toString())
  return Buffer.from(random.chance(0.1) ? random.pick(writings)(random, changed) : changed)
}

/** As `floodOfFields`, for JSON: one value, as often as fits, in a list anywhere in the schema. */
export function floodOfValues(
  random: SeededRandom,
  signal: Signal,
  bytes: number,
): { body: Buffer; unit: Buffer } {
  let [before, after] = ['{', '}']
  let message = requestMessages[signal]
  for (let depth = random.between(0, 12); depth > 0; depth--) {
    const inner = message.fields.filter((field) => field.kind === 'message')
    const next = inner[random.between(0, Math.max(0, inner.length - 1))]
    if (next === undefined || next.kind !== 'message') break
    before += `"${next.jsonName}":${next.repeated ? '[' : ''}{`
    after = `}${next.repeated ? ']' : ''}${after}`
    message = next.message
  }
  const repeated = message.fields.filter((field) => field.repeated)
  let unit: string
  if (random.chance(0.3) || repeated.length === 0) {
    // Names: unknown ones, or the same one over and over.
    const field = message.fields[random.between(0, message.fields.length - 1)]
    const known = random.chance(0.5) && field !== undefined && !field.repeated && field.oneof === undefined
    unit =
      known && field !== undefined
        ? `"${field.jsonName}":${smallValue(random, field, 2)}`
        : `${random.pick(['"x"', '""', '"\\n"'])}:${anyValue(random)}`
  } else {
    const field = repeated[random.between(0, repeated.length - 1)] as Field
    const unknown = random.chance(0.2)
    before += `"${unknown ? 'x' : field.jsonName}":[`
    after = `]${after}`
    unit = unknown ? anyValue(random) : smallValue(random, field, 2)
  }
  const each = Buffer.byteLength(unit) + 1
  const times = Math.max(1, Math.floor((bytes - before.length - after.length) / each))
  return {
    body: Buffer.from(`${before}${`${unit},`.repeat(times).slice(0, -1)}${after}`),
    unit: Buffer.from(unit),
  }
}

function anyValue(random: SeededRandom): string {
  return random.pick([
    '0',
    '1.5',
    '1e3',
    '9e99',
    '""',
    '"\\n"',
    '"\\u00e9"',
    '{}',
    '[]',
    'null',
    'true',
    '{"":0}',
    '[0]',
  ])
}

/** A short value for a field, good or nearly so. */
function smallValue(random: SeededRandom, field: Field, depth: number): string {
  switch (field.kind) {
    case 'message':
      return smallObject(random, field.message, depth)
    case 'string':
      return random.pick(['""', '"a"', '"\\n"', '"é"', '"\\ud83d"', '"\\u0041"', '"service.name"'])
    case 'bytes':
      return random.pick(['""', '"AA=="', '"AAAA"', '"-_8"'])
    case 'traceId':
      return random.pick(['""', `"${random.bytes(16).toString('hex')}"`])
    case 'spanId':
      return random.pick(['""', `"${random.bytes(8).toString('hex')}"`])
    case 'bool':
      return random.pick(['true', 'false'])
    case 'enum':
      return random.pick(['1', '"1"', `"${[...field.values.keys()][1]}"`])
    case 'double':
      return random.pick([
        '0',
        '-0',
        '0.1',
        '1e3',
        '9e99',
        '5e-324',
        '"NaN"',
        '"1"',
        '0.30000000000000004',
        '1.7976931348623157e308',
      ])
    default:
      return random.pick(['0', '1', '-0', '1e1', '1.0', '"1"', '"1e1"', '10e-1', '100'])
  }
}

function smallObject(random: SeededRandom, message: Message, depth: number): string {
  const field = message.fields[random.between(0, Math.max(0, message.fields.length - 1))]
  if (field === undefined || depth === 0 || random.chance(0.3)) return '{}'
  const value = smallValue(random, field, depth - 1)
  return `{"${field.jsonName}":${field.repeated ? `[${value}]` : value}}`
}
