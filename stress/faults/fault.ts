import type { SeededRandom } from '../seeded-random.ts'
import type { GroundWishes } from './ground.ts'
import type { Scene } from './scene.ts'

/** What a fault needs besides the scene that it is brought over. */
export interface FaultContext {
  readonly scene: Scene
  /** The same for the same seed. */
  readonly random: SeededRandom
  /** How many kills the scenarios of kills are to make. */
  readonly kills: number
  /** Says what goes on. */
  progress(line: string): void
}

/** One line of the table. */
export interface Fault {
  readonly name: string
  /** What its scene stands on, if not on the servers of the machine. */
  readonly ground?: GroundWishes
  /** Settings of all four processes that differ from those of the scene. */
  readonly settings?: Readonly<Record<string, string>>
  /** Whether the connections to PostgreSQL are encrypted. */
  readonly databaseTls?: boolean
  /** Requests that are dead letters in the end; 0 unless told. */
  readonly deadLetters?: number
  /**
   * Brings the fault about while the load goes on, and resolves when it is over. Answers what was seen, for the table.
   *
   * @throws Error with a sentence when the fault could not be brought about, or the program did not do what it must.
   */
  bring(context: FaultContext): Promise<string>
  /** Looks for more than every fault must leave true, when everything is at rest. Answers sentences about what is untrue. */
  untrueAtRest?(scene: Scene): Promise<string[]>
}

/** Ends a fault whose effect did not show, with a sentence. */
export function expect(holds: unknown, sentence: string): asserts holds {
  if (!holds) throw new Error(sentence)
}
