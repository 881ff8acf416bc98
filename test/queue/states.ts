/**
 * The states of a request and of a batch, and the steps between them. The model test holds the queue to them, and
 * docs/reliability.md shows them.
 */

/** What happens to a request or a batch: the functions of `src/queue`, the sweeper, people, and time. */
export type Step =
  | 'append'
  | 'claim'
  | 'take over'
  | 'renew'
  | 'complete'
  | 'fail'
  | 'give back'
  | 'split'
  | 'release'
  | 'bury'
  | 'replay'
  | 'discard'
  | 'sweep'
  | 'lease runs out'
  | 'pause ends'

/** `undefined` is where nothing is yet, or nothing any more. */
interface Transition<State extends string> {
  from: State | readonly State[] | undefined
  by: Step
  to: State | undefined
}

export interface StateMachine<State extends string> {
  /** Each state with what a person sees of it. */
  states: Readonly<Record<State, string>>
  /** States that are drawn as one, entered at the first of them. */
  group?: { name: string; members: readonly State[] }
  transitions: readonly Transition<State>[]
}

export type RequestState = 'pending' | 'processing' | 'failed' | 'stored' | 'dead'

export const requestStates: StateMachine<RequestState> = {
  states: {
    pending: 'a row of `ingestion_queue` without a batch',
    processing: 'a row of `ingestion_queue` in a batch that a worker holds, or held until its lease ran out',
    failed: 'a row of `ingestion_queue` in a batch that waits for its next attempt',
    stored: 'named by exactly one row of `stored_object`, and in its object',
    dead: 'a row of `dead_letter`, with the reason',
  },
  transitions: [
    { from: undefined, by: 'append', to: 'pending' },
    { from: 'pending', by: 'claim', to: 'processing' },
    { from: 'processing', by: 'release', to: 'pending' },
    { from: 'processing', by: 'fail', to: 'failed' },
    { from: 'processing', by: 'give back', to: 'failed' },
    { from: 'processing', by: 'split', to: 'failed' },
    { from: 'failed', by: 'take over', to: 'processing' },
    { from: 'processing', by: 'complete', to: 'stored' },
    { from: 'processing', by: 'bury', to: 'dead' },
    { from: 'dead', by: 'replay', to: 'pending' },
    { from: 'dead', by: 'discard', to: undefined },
  ],
}

export type BatchState = 'held' | 'expired' | 'waiting' | 'due' | 'stored' | 'abandoned' | 'looked at'

const processing = ['held', 'expired'] as const

export const batchStates: StateMachine<BatchState> = {
  states: {
    held: '`processing`; `lease_until` lies ahead',
    expired:
      '`processing`; `lease_until` has passed. Its holder may still end it, until another takes it over',
    waiting: '`failed`; `next_attempt_at` lies ahead',
    due: '`failed`; `next_attempt_at` has passed',
    stored: 'no row of `ingestion_batch`; `stored_object` names it',
    abandoned: 'no row of `ingestion_batch`; `abandoned_batch` has the keys that it may have put',
    'looked at': 'the sweeper has deleted what was under these keys, and looks once more for a late put',
  },
  group: { name: 'processing', members: processing },
  transitions: [
    { from: undefined, by: 'claim', to: 'held' },
    { from: undefined, by: 'split', to: 'due' },
    { from: 'held', by: 'lease runs out', to: 'expired' },
    { from: 'expired', by: 'renew', to: 'held' },
    { from: 'expired', by: 'take over', to: 'held' },
    { from: processing, by: 'fail', to: 'waiting' },
    { from: processing, by: 'give back', to: 'due' },
    { from: 'waiting', by: 'pause ends', to: 'due' },
    { from: 'due', by: 'take over', to: 'held' },
    { from: processing, by: 'complete', to: 'stored' },
    { from: processing, by: 'split', to: 'abandoned' },
    { from: processing, by: 'release', to: 'abandoned' },
    { from: processing, by: 'bury', to: 'abandoned' },
    { from: 'abandoned', by: 'sweep', to: 'looked at' },
    { from: 'looked at', by: 'sweep', to: undefined },
  ],
}

const nowhere = 'nowhere'

/** One arrow in words: what the model test looks a change up by. */
export function arrow(from: string | undefined, by: Step, to: string | undefined): string {
  return `${from ?? nowhere} → ${to ?? nowhere} by ${by}`
}

/** Every arrow of a machine, one for each state that it starts from. */
export function arrowsOf<State extends string>(machine: StateMachine<State>): Set<string> {
  return new Set(
    machine.transitions.flatMap(({ from, by, to }) =>
      (Array.isArray(from) ? from : [from]).map((one: State | undefined) => arrow(one, by, to)),
    ),
  )
}

/** The machine as a mermaid diagram and a table of its states. */
export function statesInMarkdown<State extends string>(machine: StateMachine<State>): string {
  const states = Object.entries<string>(machine.states)
  return [
    ['```mermaid', ...diagram(machine), '```'].join('\n'),
    [
      '| state | what is seen |',
      '| --- | --- |',
      ...states.map(([name, seen]) => `| ${name} | ${seen} |`),
    ].join('\n'),
  ].join('\n\n')
}

function diagram<State extends string>({ states, group, transitions }: StateMachine<State>): string[] {
  const isMember = (state: string) => group?.members.some((member) => member === state) === true
  const labels = new Map<string, Step[]>()
  const inside = new Map<string, Step[]>()
  for (const { from, by, to } of transitions) {
    const start = Array.isArray(from) ? group?.name : (from as State | undefined)
    const bothInside = start !== undefined && to !== undefined && isMember(start) && isMember(to)
    // An arrow into the group ends at its first state.
    const end = to !== undefined && isMember(to) && !bothInside ? group?.name : to
    const line = `${identifier(start)} --> ${identifier(end)}`
    const lines = bothInside ? inside : labels
    lines.set(line, [...(lines.get(line) ?? []), by])
  }
  const labelled = (lines: Map<string, Step[]>, indent: string) =>
    [...lines].map(([line, steps]) => `${indent}${line} : ${steps.join(', ')}`)
  const spaced = Object.keys(states).filter((name) => name.includes(' '))
  return [
    'stateDiagram-v2',
    ...spaced.map((name) => `  state "${name}" as ${identifier(name)}`),
    ...(group === undefined
      ? []
      : [
          `  state ${group.name} {`,
          `    [*] --> ${identifier(group.members[0])}`,
          ...labelled(inside, '    '),
          '  }',
        ]),
    ...labelled(labels, '  '),
  ]
}

function identifier(state: string | undefined): string {
  return state === undefined ? '[*]' : state.replaceAll(' ', '_')
}
