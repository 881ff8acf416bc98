import {
  countDeadLetters,
  type DeadLetterFilter,
  discardDeadLetters,
  replayDeadLetters,
} from '../../../src/queue/dead-letters.ts'
import { agree } from './disagreement.ts'
import type { Letter, Model, ModelRequest } from './model.ts'
import { type Planner, pick } from './steps.ts'

/** What a person asks for; `isOne` for a single letter by its id. */
export interface Wish {
  filter: Omit<DeadLetterFilter, 'ids'>
  isOne: boolean
  number: number
  rowsMax: number
  bytesMax: number
}

/** Dead letters are tried again: the same requests, as if they had just been staged, in their old place. */
export function replay(wish: Wish): Planner {
  return (model) => {
    if (model.dead.length === 0) return undefined
    const { rowsMax, bytesMax } = wish
    let bytes = 0
    const due = matching(model, wish)
      .slice(0, rowsMax)
      .filter(({ staged }, index) => {
        bytes += staged.payload.length
        return index === 0 || bytes <= bytesMax
      })
    return {
      words: `somebody replays ${wishWords(wish)}, at most ${rowsMax} rows and ${bytesMax} bytes`,
      by: 'replay',
      act: async ({ sql }) => {
        const filter = filterOf(model, wish)
        const { lastId } = await countDeadLetters(sql, filter)
        const moved = await replayDeadLetters(sql, filter, { after: 0n, last: lastId, rowsMax, bytesMax })
        agree('replayed', moved, movedOf(due))
        for (const request of due) request.place = { is: 'pending' }
        return namesOf(due)
      },
    }
  }
}

export function discard(wish: Wish): Planner {
  return (model) => {
    if (model.dead.length === 0) return undefined
    const { rowsMax } = wish
    const due = matching(model, wish).slice(0, rowsMax)
    return {
      words: `somebody discards ${wishWords(wish)}, at most ${rowsMax} rows`,
      by: 'discard',
      act: async ({ sql }) => {
        const filter = filterOf(model, wish)
        const { lastId } = await countDeadLetters(sql, filter)
        const moved = await discardDeadLetters(sql, filter, { after: 0n, last: lastId, rowsMax })
        agree('discarded', moved, movedOf(due))
        for (const request of due) request.place = { is: 'discarded' }
        return namesOf(due)
      },
    }
  }
}

function matching(model: Model, wish: Wish): ModelRequest[] {
  const { reason, tenant, signal, ids } = filterOf(model, wish)
  const fits = ({ request, letter }: { request: ModelRequest; letter: Letter }) =>
    (reason === undefined || letter.reason === reason) &&
    (tenant === undefined || request.staged.tenant === tenant) &&
    (signal === undefined || request.staged.signal === signal) &&
    (ids === undefined || ids.includes(request.id))
  return model.dead.filter(fits).map(({ request }) => request)
}

function filterOf(model: Model, { filter, isOne, number }: Wish): DeadLetterFilter {
  const letter = pick(model.dead, number)
  return isOne && letter !== undefined ? { ...filter, ids: [letter.request.id] } : filter
}

function movedOf(requests: readonly ModelRequest[]) {
  return {
    rows: requests.length,
    bytes: requests.reduce((sum, { staged }) => sum + staged.payload.length, 0),
    lastId: requests.at(-1)?.id ?? null,
  }
}

function wishWords({ filter, isOne }: Wish): string {
  const conditions = Object.entries(filter).map(([name, value]) => `${name} ${value}`)
  return [isOne ? 'one dead letter' : 'the dead letters', ...conditions].join(', ')
}

function namesOf(requests: readonly ModelRequest[]): string {
  return requests.map(({ name }) => name).join(', ') || 'none'
}
