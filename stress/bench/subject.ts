/** A system that takes OTLP over HTTP and moves it on: ours, or one that it is compared with. */
export interface Subject {
  /** In the tables. */
  readonly name: string
  /** Where to send to. */
  readonly url: URL
  /** The first process of everything that belongs to it, by name. What only receives from it does not. */
  readonly pids: ReadonlyMap<string, number>
  /** How it is set, for whoever wants to repeat the run. */
  readonly settings: Readonly<Record<string, string>>
  /** Makes ready for a measurement: nothing of what came before is left to do. */
  settle(): Promise<void>
  /** Resolves when the `taken` requests that it has answered with 200 since `settle` are where they go. */
  drained(taken: number): Promise<void>
  close(): Promise<void>
}
