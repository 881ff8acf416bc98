import type { BenchBody } from './bodies.ts'

/** What every part of the bench is told. */
export interface Bench {
  /** Says how far it is, on standard error. */
  say: (line: string) => void
  /** How often each comparison is repeated. */
  rounds: number
  /** Nothing that takes longer than a minute. */
  isQuick: boolean
  /** What the rates are measured with. */
  bodies: readonly BenchBody[]
  /** How Sluice is set. */
  settings: Readonly<Record<string, string>>
  /** The program of the Collector to compare with, if there is one. */
  collector: string | undefined
}

/** A kind of measurement. */
export interface BenchPart {
  readonly name: string
  measure(bench: Bench): Promise<PartResult>
}

export interface PartResult {
  tables: readonly { title: string; rows: readonly (readonly string[])[]; widths: readonly number[] }[]
  goals: readonly Goal[]
  /** As they go into the JSON. */
  figures: unknown
}

/** A line of the table of goals. */
export interface Goal {
  what: string
  wanted: string
  seen: string
  /** Undefined where there is nothing to hold it against. */
  isReached: boolean | undefined
}

export function judge({ isReached }: Goal): string {
  return isReached === undefined ? '' : isReached ? 'reached' : 'MISSED'
}

/** Undefined of nothing. */
export function median(values: readonly number[]): number | undefined {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1 ? sorted[middle] : mean(sorted.slice(middle - 1, middle + 1))
}

function mean(values: readonly number[]): number | undefined {
  return values.length === 0 ? undefined : values.reduce((sum, value) => sum + value, 0) / values.length
}
