import { setImmediate } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { type Family, FuzzBodies, type FuzzBody, families } from './fuzz-bodies.ts'
import { FuzzJudge, type Question, type Verdict } from './fuzz-judge.ts'
import {
  type Fault,
  faultOfAccepted,
  faultOfRefusal,
  faultsOf,
  type ListedRule,
  type Property,
} from './fuzz-properties.ts'
import { contentOf, FuzzTarget, type RefusalRule, refusalRule, type Tried } from './fuzz-target.ts'

/** What became of the bodies of one family. */
export interface FamilyTally {
  tried: number
  accepted: number
  /** Of those accepted. */
  repaired: number
  refused: Partial<Record<RefusalRule, number>>
}

/** A body that held the event loop for long. */
export interface SlowBody {
  /** For each megabyte of the body as it came. */
  ms: number
  number: number
  family: Family
  bytes: number
  /** What stands in its middle. */
  middle: string
}

/** A body of which a property is not true. */
export interface Violation {
  property: Property
  detail: string
  number: number
  signal: string
  family: Family
  encoding: string
  framed: boolean
  format: string
  /** The start of it, made as small as it could be with little effort. */
  bodyHex: string
  bytes: number
}

export interface FuzzTally {
  families: Record<Family, FamilyTally>
  /** Bodies that Python decodes and a listed rule refuses. */
  listed: Partial<Record<ListedRule, number>>
  /** The slowest first; others ran at the same time, see `measureAlone`. */
  slowest: SlowBody[]
  violations: Violation[]
  /** How many there were in all. */
  violated: number
  /** What the heap held after a collection, when a tenth was tried and at the end. */
  heapBytes: { early: number; late: number }
}

export interface FuzzOptions {
  seed: number
  /** The number of the first body, and how many. */
  from: number
  bodies: number
  /** Called now and then with the bodies tried so far. */
  onProgress?: (tried: number) => void
}

const violationsMax = 10
const batchQuestions = 400
const batchBytes = 4 * 1024 * 1024
/** Below this a hold is not looked at. */
const slowMs = 10
const slowestMax = 8
/** A pause of the machine, or of the garbage collector, does not come every time; nor is code slow for long that is often run. */
const triesAmongOthers = 3
const triesAlone = 20
/** Below this no further try is made. */
const quickMs = 20
const megabyte = 1024 * 1024
const shrinkTries = 1500
/** What is printed of a body; a longer one is made again by its number. */
const printedBytes = 1000

/** Tries bodies against this process and another decoder. Throws only where the fuzzer itself is wrong. */
export async function runFuzz(options: FuzzOptions): Promise<FuzzTally> {
  const judge = await FuzzJudge.start()
  // Most bodies are refused by an error, and where it was thrown takes a tenth of the time; see `#told`.
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 0
  try {
    return await new FuzzRun(options, judge).run()
  } finally {
    Error.stackTraceLimit = stackTraceLimit
    await judge.stop()
  }
}

/** What several runs found, as of one. */
export function joinTallies(tallies: readonly FuzzTally[]): FuzzTally {
  const joined = emptyTally()
  for (const tally of tallies) {
    for (const family of families) {
      const into = joined.families[family]
      const { tried, accepted, repaired, refused } = tally.families[family]
      into.tried += tried
      into.accepted += accepted
      into.repaired += repaired
      addCounts(into.refused, refused)
    }
    addCounts(joined.listed, tally.listed)
    joined.slowest = slowestOf([...joined.slowest, ...tally.slowest])
    joined.violations.push(...tally.violations)
    joined.violated += tally.violated
    joined.heapBytes.early += tally.heapBytes.early
    joined.heapBytes.late += tally.heapBytes.late
  }
  return joined
}

function emptyTally(): FuzzTally {
  return {
    families: Object.fromEntries(
      families.map((family) => [family, { tried: 0, accepted: 0, repaired: 0, refused: {} }]),
    ) as Record<Family, FamilyTally>,
    listed: {},
    slowest: [],
    violations: [],
    violated: 0,
    heapBytes: { early: 0, late: 0 },
  }
}

function addCounts<K extends string>(
  into: Partial<Record<K, number>>,
  counts: Partial<Record<K, number>>,
): void {
  for (const name of Object.keys(counts) as K[]) into[name] = (into[name] ?? 0) + (counts[name] ?? 0)
}

function slowestOf(bodies: readonly SlowBody[]): SlowBody[] {
  return bodies.toSorted((one, other) => other.ms - one.ms).slice(0, slowestMax)
}

/**
 * How long those bodies hold the event loop while nothing else of the fuzzer runs, the slowest first: two threads that share
 * a core take half again as long for the same.
 */
export async function measureAlone(seed: number, slowest: readonly SlowBody[]): Promise<SlowBody[]> {
  const target = new FuzzTarget()
  const bodies = new FuzzBodies(seed)
  const alone: SlowBody[] = []
  for (const { number } of slowest)
    alone.push(await measured(target, number, bodies.make(number), triesAlone))
  return slowestOf(alone)
}

/** The least of several tries. */
async function measured(
  target: FuzzTarget,
  number: number,
  body: FuzzBody,
  tries: number,
): Promise<SlowBody> {
  let ms = Number.POSITIVE_INFINITY
  for (let left = tries; left > 0 && ms > quickMs; left--) {
    ms = Math.min(ms, (await target.try(body)).holdMs / Math.max(1, body.body.length / megabyte))
  }
  const half = Math.floor(body.body.length / 2)
  const middle = body.body.toString(body.format === 'json' ? 'latin1' : 'hex', half, half + 24)
  return { ms, number, family: body.family, bytes: body.body.length, middle }
}

interface Asked {
  readonly question: Question
  readonly answer: (verdict: Verdict) => void
}

class FuzzRun {
  readonly #options: FuzzOptions
  readonly #judge: FuzzJudge
  readonly #target = new FuzzTarget()
  readonly #bodies: FuzzBodies
  readonly #tally = emptyTally()
  readonly #found: { number: number; body: FuzzBody; fault: Fault }[] = []
  #asked: Asked[] = []
  #askedBytes = 0
  #answering: Promise<void> = Promise.resolve()

  constructor(options: FuzzOptions, judge: FuzzJudge) {
    this.#options = options
    this.#judge = judge
    this.#bodies = new FuzzBodies(options.seed)
  }

  async run(): Promise<FuzzTally> {
    const { from, bodies, onProgress } = this.#options
    const early = Math.ceil(bodies / 10)
    for (let place = 0; place < bodies; place++) {
      await this.#one(from + place)
      if (place === early) {
        await this.#ask()
        await this.#answering
        this.#tally.heapBytes.early = await heapBytes()
      }
      if (place % 250 === 249) onProgress?.(place + 1)
    }
    await this.#ask()
    await this.#answering
    this.#tally.heapBytes.late = await heapBytes()
    onProgress?.(bodies)
    for (const { number, body, fault } of this.#found)
      this.#tally.violations.push(await this.#told(number, body, fault))
    return this.#tally
  }

  async #one(number: number): Promise<void> {
    const body = this.#bodies.make(number)
    const tried = await this.#target.try(body)
    if (tried.holdMs >= slowMs) await this.#noteSlow(number, body)
    const tally = this.#tally.families[body.family]
    tally.tried++
    if (tried.outcome.kind === 'accepted') {
      tally.accepted++
      if (tried.repairedStrings > 0) tally.repaired++
    }
    const { faults, questions } = await this.#see(body, tried)
    if (questions.rule !== undefined) tally.refused[questions.rule] = (tally.refused[questions.rule] ?? 0) + 1
    for (const fault of faults) this.#violated(number, body, fault)
    const verdicts: { stored?: Verdict; came?: Verdict } = {}
    let open = 0
    const settle = () => {
      if (--open > 0) return
      const fault = this.#judged(body, tried, questions.rule, verdicts)
      if (fault !== undefined) this.#violated(number, body, fault)
    }
    for (const name of ['stored', 'came'] as const) {
      const question = questions[name]
      if (question === undefined) continue
      open++
      this.#asked.push({
        question,
        answer: (verdict) => {
          verdicts[name] = verdict
          settle()
        },
      })
      this.#askedBytes += question.body.length
    }
    if (this.#asked.length >= batchQuestions || this.#askedBytes >= batchBytes) await this.#ask()
  }

  async #noteSlow(number: number, body: FuzzBody): Promise<void> {
    const slow = await measured(this.#target, number, body, triesAmongOthers)
    this.#tally.slowest = slowestOf([...this.#tally.slowest, slow])
  }

  async #see(
    body: FuzzBody,
    tried: Tried,
  ): Promise<{
    faults: Fault[]
    questions: { rule: RefusalRule | undefined; stored?: Question; came?: Question }
  }> {
    const accepted = tried.outcome.kind === 'accepted'
    const rule = accepted ? undefined : await refusalRule(body)
    const content = accepted ? await contentOf(body) : undefined
    const faults = faultsOf(body, tried, {
      rule,
      content: typeof content === 'string' ? undefined : content,
    })
    const { signal, encoding, framed, body: came } = body
    const questions: { rule: RefusalRule | undefined; stored?: Question; came?: Question } = { rule }
    const { row } = tried
    if (row !== undefined)
      questions.stored = { signal, encoding: row.encoding, framed: false, body: row.payload }
    // What needed no repair is stored as it came, so that one question is enough.
    const asCame = row !== undefined && tried.repairedStrings === 0
    if (body.format === 'protobuf' && encoding !== 'zstd' && !asCame) {
      questions.came = { signal, encoding, framed, body: came }
    }
    return { faults, questions }
  }

  #judged(
    body: FuzzBody,
    tried: Tried,
    rule: RefusalRule | undefined,
    verdicts: { stored?: Verdict; came?: Verdict },
    count = true,
  ): Fault | undefined {
    if (rule === undefined) return faultOfAccepted(tried, verdicts)
    if (verdicts.came === undefined) return undefined
    const found = faultOfRefusal(body, rule, verdicts.came)
    if (typeof found !== 'string') return found
    if (count) this.#tally.listed[found] = (this.#tally.listed[found] ?? 0) + 1
    return undefined
  }

  /** Asks the other decoder what has gathered, while the next bodies are made. */
  async #ask(): Promise<void> {
    const asked = this.#asked
    this.#asked = []
    this.#askedBytes = 0
    await this.#answering
    if (asked.length === 0) return
    this.#answering = this.#judge.ask(asked.map(({ question }) => question)).then((verdicts) => {
      for (const [place, verdict] of verdicts.entries()) asked[place]?.answer(verdict)
    })
    this.#answering.catch(() => undefined)
  }

  #violated(number: number, body: FuzzBody, fault: Fault): void {
    this.#tally.violated++
    const alike = this.#found.filter((found) => found.fault.property === fault.property).length
    if (this.#found.length < violationsMax && alike < 4) this.#found.push({ number, body, fault })
  }

  async #told(number: number, body: FuzzBody, fault: Fault): Promise<Violation> {
    const smaller = await this.#shrunk(body, fault.property)
    Error.stackTraceLimit = 30
    const { bug } = await this.#target.try(smaller)
    Error.stackTraceLimit = 0
    return {
      property: fault.property,
      detail: bug instanceof Error ? `${fault.detail}\n${bug.stack}` : fault.detail,
      number,
      signal: body.signal,
      family: body.family,
      encoding: body.encoding,
      framed: body.framed,
      format: body.format,
      bodyHex: smaller.body.subarray(0, printedBytes).toString('hex'),
      bytes: smaller.body.length,
    }
  }

  /** The body with as much left out as can be without the fault going away. */
  async #shrunk(body: FuzzBody, property: Property): Promise<FuzzBody> {
    let smallest = body
    let tries = 0
    for (
      let step = Math.ceil(body.body.length / 2);
      step >= 1 && tries < shrinkTries;
      step = Math.floor(step / 2)
    ) {
      for (let at = 0; at < smallest.body.length && tries < shrinkTries; tries++) {
        const shorter = Buffer.concat([smallest.body.subarray(0, at), smallest.body.subarray(at + step)])
        const candidate = { ...smallest, body: shorter }
        if (await this.#isFault(candidate, property)) smallest = candidate
        else at += step
      }
    }
    return smallest
  }

  async #isFault(body: FuzzBody, property: Property): Promise<boolean> {
    const tried = await this.#target.try(body)
    const { faults, questions } = await this.#see(body, tried)
    if (faults.some((fault) => fault.property === property)) return true
    const verdicts: { stored?: Verdict; came?: Verdict } = {}
    for (const name of ['stored', 'came'] as const) {
      const question = questions[name]
      if (question === undefined) continue
      const [verdict] = await this.#judge.ask([question])
      if (verdict !== undefined) verdicts[name] = verdict
    }
    return this.#judged(body, tried, questions.rule, verdicts, false)?.property === property
  }
}

let collect: (() => void) | undefined

/** What this thread's heap and its buffers hold after a collection. */
async function heapBytes(): Promise<number> {
  if (collect === undefined) {
    setFlagsFromString('--expose-gc')
    collect = runInNewContext('gc') as () => void
  }
  collect()
  // Buffers go after the objects that held them.
  await setImmediate()
  collect()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}
