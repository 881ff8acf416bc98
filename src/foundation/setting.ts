import { z } from 'zod'

/**
 * One setting, declared beside the code that it steers. `T` is what the code gets; it includes `undefined` when
 * there is no default.
 */
export interface Setting<T> {
  readonly kind: 'integer' | 'decimal' | 'boolean' | 'choice' | 'text' | 'list' | 'bytes' | 'url' | 'secret'
  /** One sentence for an operator: what it changes. */
  readonly about: string
  /** What a value must be, such that "must be" can stand before it. */
  readonly rule: string
  /** Turns the text of an environment variable into the value, or answers an issue. */
  readonly schema: z.ZodType<T, string>
  readonly default: T
  /** The default as it would be written in the environment; undefined when there is none. */
  readonly defaultText: string | undefined
  /** What happens without a value, for a setting that has no default. */
  readonly whenUnset: string | undefined
  readonly unit: string | undefined
  /** Other names that are taken when neither the name nor its `OTEL_` form is set. */
  readonly aliases: readonly string[]
  /** The value as it may be shown in a message. */
  readonly mask: (text: string) => string
}

/** The settings of one part, by the name of their environment variable. */
export type SettingsDeclaration = Readonly<Record<string, Setting<unknown>>>

/** The values of a declaration: the same names, parsed. */
export type Parsed<D extends SettingsDeclaration> = {
  readonly [Name in keyof D]: D[Name] extends Setting<infer T> ? T : never
}

/** A rule over several settings. `holds` sees parsed values only, so it runs when each of `names` is right alone. */
export interface SettingsRule<D extends SettingsDeclaration> {
  readonly names: readonly (keyof D & string)[]
  /** A sentence that states the rule, with the names in it. */
  readonly rule: string
  readonly holds: (values: Parsed<D>) => boolean
}

interface Described {
  about: string
  aliases?: readonly string[]
  whenUnset?: string
}

/** The value is optional exactly when no default was given. */
type Value<T, O> = O extends { default: T } ? T : T | undefined

function declare<T, O extends Described & { default?: T; unit?: string }>(
  kind: Setting<unknown>['kind'],
  rule: string,
  schema: z.ZodType<T, string>,
  options: O,
  shown: { defaultText?: (value: T) => string; mask?: (text: string) => string } = {},
): Setting<Value<T, O>> {
  const { about, aliases = [], whenUnset, unit } = options
  const defaultText =
    options.default === undefined ? undefined : (shown.defaultText ?? String)(options.default)
  const setting: Setting<T | undefined> = {
    kind,
    about,
    rule,
    schema,
    default: options.default,
    defaultText,
    whenUnset,
    unit,
    aliases,
    mask: shown.mask ?? ((text) => text),
  }
  // Without a default the value may be undefined, with one it may not: that is what Value says.
  return setting as Setting<Value<T, O>>
}

function inRange(noun: string, { min, max }: { min?: number; max?: number }, unit = ''): string {
  const of = unit === '' ? noun : `${noun} of ${unit}`
  if (min !== undefined && max !== undefined) return `${of} from ${min} to ${max}`
  if (min !== undefined) return `${of} of at least ${min}`
  return max === undefined ? of : `${of} of at most ${max}`
}

function bounded(number: z.ZodNumber, { min, max }: { min?: number; max?: number }): z.ZodNumber {
  const atLeast = min === undefined ? number : number.min(min)
  return max === undefined ? atLeast : atLeast.max(max)
}

interface NumberOptions extends Described {
  default?: number
  min?: number
  max?: number
  /** In full, plural: `milliseconds`. */
  unit?: string
}

/** A whole number in decimal digits, or one of `words`, each with the number that it stands for. */
export function integer<O extends NumberOptions & { words?: Readonly<Record<string, number>> }>(
  options: O,
): Setting<Value<number, O>> {
  const { words = {}, unit } = options
  const digits = z
    .string()
    .regex(/^[+-]?\d+$/)
    .transform(Number)
    .pipe(bounded(z.number().int(), options))
  const word = z
    .string()
    .toLowerCase()
    .transform((written) => (Object.hasOwn(words, written) ? words[written] : undefined))
    .pipe(z.number())
  const rule = [...Object.keys(words), inRange('a whole number', options, unit)].join(' or ')
  return declare('integer', rule, z.union([word, digits]), options)
}

/** A number with or without a fraction, written with a point. */
export function decimal<O extends NumberOptions>(options: O): Setting<Value<number, O>> {
  const schema = z
    .string()
    .regex(/^[+-]?(\d+\.?\d*|\.\d+)$/)
    .transform(Number)
    .pipe(bounded(z.number(), options))
  return declare('decimal', inRange('a number', options, options.unit), schema, options, {
    defaultText: (value) => (Number.isInteger(value) ? value.toFixed(1) : String(value)),
  })
}

const booleanWords: Readonly<Record<string, boolean>> = {
  true: true,
  yes: true,
  on: true,
  '1': true,
  false: false,
  no: false,
  off: false,
  '0': false,
}

/** `true` or `false`; also yes, no, on, off, 1 and 0, in any case. */
export function boolean<O extends Described & { default?: boolean }>(options: O): Setting<Value<boolean, O>> {
  const schema = z
    .string()
    .toLowerCase()
    .transform((word) => booleanWords[word])
    .pipe(z.boolean())
  return declare('boolean', 'true or false', schema, options)
}

/** One of `choices`, in any case. `synonyms` are other spellings, with the choice that each stands for. */
export function oneOf<
  const C extends string,
  O extends Described & {
    choices: readonly C[]
    default?: C
    synonyms?: Readonly<Record<string, NoInfer<C>>>
  },
>(options: O & { choices: readonly C[] }): Setting<Value<C, O>> {
  const { choices, synonyms = {} } = options
  const schema = z
    .string()
    .toLowerCase()
    .transform((word) => (Object.hasOwn(synonyms, word) ? synonyms[word] : word))
    .pipe(z.enum(choices)) as z.ZodType<C, string>
  return declare<C, O>('choice', `one of ${choices.join(', ')}`, schema, options)
}

interface TextOptions extends Described {
  default?: string
  /** With `rule`: what the text must look like, and the same in words. */
  pattern?: RegExp
  rule?: string
}

/** Any text that is not blank. Blanks around it are cut off. */
export function text<O extends TextOptions>(options: O): Setting<Value<string, O>> {
  const schema = options.pattern === undefined ? z.string() : z.string().regex(options.pattern)
  return declare('text', options.rule ?? 'a text', schema, options)
}

/** Texts with commas between them. Blanks around each are cut off, empty ones are left out. */
export function list<O extends Described & { default?: readonly string[]; pattern: RegExp; rule: string }>(
  options: O,
): Setting<Value<readonly string[], O>> {
  const schema = z
    .string()
    .transform((text) =>
      text
        .split(',')
        .map((entry) => entry.trim())
        .filter((entry) => entry !== ''),
    )
    .pipe(z.array(z.string().regex(options.pattern)).min(1))
  return declare<readonly string[], O>('list', options.rule, schema, options, {
    defaultText: (entries) => entries.join(','),
  })
}

/** A text that no message, log line or page may show. */
export function secret<O extends TextOptions>(options: O): Setting<Value<string, O>> {
  const schema = options.pattern === undefined ? z.string() : z.string().regex(options.pattern)
  return declare('secret', options.rule ?? 'a text', schema, options, { mask: () => maskedText })
}

const maskedText = '******'

/** The text of a URL with everything that may be a credential masked, also when it is no URL that parses. */
export function maskUrl(url: string): string {
  if (!url.includes('//')) return url.includes('@') ? maskedText : url
  return url
    .replace(/\/\/.*@/, `//${maskedText}@`)
    .replace(/([?&][^=&]*(?:password|secret|token|key)[^=&]*=)[^&]*/gi, `$1${maskedText}`)
}

/** A URL of one of `schemes`, kept as text. Its credentials are masked in messages. */
export function url<O extends Described & { schemes: readonly string[]; default?: string }>(
  options: O,
): Setting<Value<string, O>> {
  const schema = z.string().refine((value) => {
    const parsed = URL.parse(value)
    return parsed !== null && options.schemes.includes(parsed.protocol.slice(0, -1))
  })
  const starts = options.schemes.map((scheme) => `${scheme}://`).join(' or ')
  return declare('url', `a URL that starts with ${starts}`, schema, options, { mask: maskUrl })
}

const byteUnits = { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 }

/** A number of bytes in the largest unit that divides it, as a `bytes` setting takes it: `20MiB`. */
export function bytesText(count: number): string {
  const unit = Object.entries(byteUnits).findLast(([, size]) => count >= size && count % size === 0)
  return unit === undefined ? String(count) : `${count / unit[1]}${unit[0]}`
}

function bytesOf(written: string): number {
  const parts = /^(\d+(?:\.\d+)?) *([kmgt]ib)?$/i.exec(written)
  if (parts === null) return Number.NaN
  const unit = Object.entries(byteUnits).find(([name]) => name.toLowerCase() === parts[2]?.toLowerCase())
  return Number(parts[1]) * (unit?.[1] ?? 1)
}

/** A number of bytes: plain, or with KiB, MiB, GiB or TiB behind it. */
export function bytes<O extends Described & { default?: number; min?: number; max?: number }>(
  options: O,
): Setting<Value<number, O>> {
  const schema = z
    .string()
    .transform(bytesOf)
    .pipe(bounded(z.number().int(), { min: 0, ...options }))
  const limits = [
    ...(options.min === undefined ? [] : [`at least ${bytesText(options.min)}`]),
    ...(options.max === undefined ? [] : [`at most ${bytesText(options.max)}`]),
  ]
  const range = limits.length === 0 ? '' : `, ${limits.join(' and ')}`
  return declare('bytes', `a number of bytes such as 1048576, 20MiB or 4GiB${range}`, schema, options, {
    defaultText: bytesText,
  })
}

/** What is wrong with the environment, all of it at once. The message can be printed as it is; it holds no secret. */
export class SettingsError extends Error {
  readonly faults: readonly string[]

  constructor(faults: readonly string[]) {
    const headline = faults.length === 1 ? '1 setting is wrong:' : `${faults.length} settings are wrong:`
    super([headline, ...faults.map((fault) => `  ${fault}`)].join('\n'))
    this.name = 'SettingsError'
    this.faults = faults
  }
}

export type Environment = Readonly<Record<string, string | undefined>>

/**
 * Reads a declaration from the environment. For each setting the first of `NAME`, `OTEL_NAME` and its aliases that
 * is not blank counts; a blank variable is one that is not set (OpenTelemetry, Environment Variable Specification,
 * "Parsing empty value").
 *
 * @returns the values, and a warning for each variable that looks like a misspelt setting.
 * @throws SettingsError that names every fault.
 */
export function parseSettings<D extends SettingsDeclaration>(
  declaration: D,
  environment: Environment,
  rules: readonly SettingsRule<D>[] = [],
): { values: Parsed<D>; warnings: string[] } {
  const values: Record<string, unknown> = {}
  const shown = new Map<string, string>()
  const wrong = new Set<string>()
  const faults: string[] = []
  for (const [name, setting] of Object.entries(declaration)) {
    const candidates = [name, `OTEL_${name}`, ...setting.aliases]
    const source = candidates.find((candidate) => (environment[candidate] ?? '').trim() !== '')
    if (source === undefined) {
      values[name] = setting.default
      shown.set(
        name,
        setting.defaultText === undefined ? `${name} not set` : `${name}=${setting.defaultText}`,
      )
      continue
    }
    const written = (environment[source] ?? '').trim()
    const parsed = setting.schema.safeParse(written)
    shown.set(name, `${source}=${setting.mask(written)}`)
    if (parsed.success) {
      values[name] = parsed.data
    } else {
      wrong.add(name)
      faults.push(`${shown.get(name)}: must be ${setting.rule}`)
    }
  }
  for (const { names, rule, holds } of rules) {
    // Every setting of the declaration has a value of its declared type by now, unless it is in `wrong`.
    if (names.some((name) => wrong.has(name)) || holds(values as Parsed<D>)) continue
    faults.push(`${names.map((name) => shown.get(name)).join(', ')}: ${rule}`)
  }
  if (faults.length > 0) throw new SettingsError([...faults, ...misspeltNames(declaration, environment)])
  return { values: values as Parsed<D>, warnings: misspeltNames(declaration, environment) }
}

/** A sentence for each variable whose name is close to one of ours without being one. */
function misspeltNames(declaration: SettingsDeclaration, environment: Environment): string[] {
  const ours = Object.entries(declaration).flatMap(([name, { aliases }]) => [name, ...aliases])
  const known = new Set([...ours, ...Object.keys(declaration).map((name) => `OTEL_${name}`)])
  return Object.keys(environment)
    .filter((name) => (environment[name] ?? '').trim() !== '' && !known.has(name))
    .flatMap((name) => {
      const resembled = closestName(name, ours)
      return resembled === undefined
        ? []
        : [`${name} is not a setting and has no effect; did you mean ${resembled}?`]
    })
}

function lettersOf(name: string): string {
  return name
    .toUpperCase()
    .replace(/^OTEL_/, '')
    .replaceAll(/[^A-Z0-9]/g, '')
}

function sameWords(name: string, other: string): boolean {
  const sorted = (words: string) => words.toUpperCase().split('_').sort().join('_')
  return sorted(name.replace(/^OTEL_/, '')) === sorted(other)
}

/** How many letters may differ. Short names such as HOST have too many innocent neighbours to allow any. */
function lettersForgiven(length: number): number {
  if (length < 6) return 0
  if (length < 8) return 1
  return length < 12 ? 2 : 3
}

function closestName(name: string, ours: readonly string[]): string | undefined {
  const letters = lettersOf(name)
  let closest: string | undefined
  let closestDistance = Number.POSITIVE_INFINITY
  for (const candidate of ours) {
    const wanted = lettersOf(candidate)
    const forgiven = lettersForgiven(Math.min(letters.length, wanted.length))
    const distance = sameWords(name, candidate) ? 0 : editDistance(letters, wanted)
    if (distance <= forgiven && distance < closestDistance) {
      closest = candidate
      closestDistance = distance
    }
  }
  return closest
}

/** Levenshtein distance: how many letters must be put in, taken out or changed to turn one word into the other. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, column) => column)
  for (const [index, letter] of [...from].entries()) {
    const next = [index + 1]
    for (const [column, wanted] of [...to].entries()) {
      const changed = (row[column] ?? 0) + (letter === wanted ? 0 : 1)
      next.push(Math.min(changed, (row[column + 1] ?? 0) + 1, (next[column] ?? 0) + 1))
    }
    row = next
  }
  return row.at(-1) ?? 0
}
