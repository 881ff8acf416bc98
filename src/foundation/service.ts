/**
 * Anything with a life: the pollers, the listeners, the embedded server.
 *
 * `start` resolves when the service does its work. `stop` takes no more, finishes what is in hand, and resolves
 * when nothing of the service runs any more; it may be called without a start, and twice. `giveUp` aborts when
 * the grace is over: what is still in hand is then left, in a state that the next start can pick up.
 */
export interface Service {
  readonly name: string
  start(): Promise<void>
  stop(giveUp: AbortSignal): Promise<void>
}
