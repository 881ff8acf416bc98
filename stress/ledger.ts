import { createHash } from 'node:crypto'
import type { GeneratedRequest } from './generator.ts'
import type { Answer } from './http-client.ts'
import { canonicalRequest, type StressSignal } from './otlp-messages.ts'

/** What an answer promised about the store. */
export type Promised =
  /** 200: stored exactly once. */
  | 'stored'
  /** Refused or dropped: never stored. */
  | 'nothing'
  /** 503, or no answer: stored once or not at all. */
  | 'unknown'

/** One request that was sent, and the answer to it. */
export interface LedgerEntry {
  readonly marker: string
  readonly signal: StressSignal
  readonly items: number
  readonly answer: Answer
  readonly promised: Promised
  /** Whether these protobuf bytes out of the store are what was sent. */
  readonly equals: (stored: Buffer) => boolean
}

/** Every request sent and every answer got, by marker. */
export class Ledger {
  readonly entries = new Map<string, LedgerEntry>()

  /** Keeps a digest of the request, not the request. */
  record(request: GeneratedRequest, answer: Answer): LedgerEntry {
    const { marker, signal, items, format, protobuf } = request
    const expected = format === 'protobuf' ? digest(protobuf) : digest(canonicalRequest(signal, protobuf))
    return this.add({
      marker,
      signal,
      items,
      answer,
      promised: promisedBy(answer),
      equals: (stored) =>
        (format === 'protobuf' ? digest(stored) : digest(canonicalRequest(signal, stored))) === expected,
    })
  }

  add(entry: LedgerEntry): LedgerEntry {
    if (this.entries.has(entry.marker)) throw new Error(`${entry.marker} was sent twice`)
    this.entries.set(entry.marker, entry)
    return entry
  }

  count(which: Promised): number {
    return this.select((entry) => entry.promised === which).length
  }

  countStatus(status: number): number {
    return this.withStatus(status).length
  }

  withStatus(status: number): LedgerEntry[] {
    return this.select(({ answer }) => answer.kind === 'answered' && answer.status === status)
  }

  select(wanted: (entry: LedgerEntry) => boolean): LedgerEntry[] {
    return [...this.entries.values()].filter(wanted)
  }

  /** How often each status came, in words: `200 × 12, 429 × 3, no answer × 1`. */
  describe(): string {
    const counts = new Map<string, number>()
    for (const { answer } of this.entries.values()) {
      const name = answer.kind === 'answered' ? String(answer.status) : 'no answer'
      counts.set(name, (counts.get(name) ?? 0) + 1)
    }
    return [...counts]
      .sort()
      .map(([name, count]) => `${name} × ${count}`)
      .join(', ')
  }
}

export function promisedBy(answer: Answer): Promised {
  if (answer.kind === 'lost' || answer.status >= 500) return 'unknown'
  return answer.status === 200 ? 'stored' : 'nothing'
}

function digest(content: Buffer | string): string {
  return createHash('sha256').update(content).digest('base64')
}
