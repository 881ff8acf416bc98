import { expect, test } from 'vitest'
import { partialSuccess, type RefusalKind, refusalAnswer } from '../../src/ingress/outcome.ts'

const kinds: RefusalKind[] = [
  'malformed',
  'unauthenticated',
  'forbidden',
  'unknown_path',
  'wrong_method',
  'wrong_content_type',
  'too_large',
  'too_slow',
  'rate_limited',
  'queue_full',
  'staging_away',
  'no_room',
  'disk_full',
  'overloaded',
  'shutting_down',
  'bug',
]

test('every refusal has its status, its google.rpc.Code, and a wait exactly where OTLP lets a sender retry', () => {
  const answers = kinds.map((kind) => {
    const { httpStatus, rpcCode, retryAfterSeconds } = refusalAnswer({ kind, message: 'm' }, () => 0.5)
    return [kind, httpStatus, rpcCode, retryAfterSeconds]
  })
  expect(answers).toEqual([
    ['malformed', 400, 3, undefined],
    ['unauthenticated', 401, 16, undefined],
    ['forbidden', 403, 7, undefined],
    ['unknown_path', 404, 12, undefined],
    ['wrong_method', 405, 12, undefined],
    ['wrong_content_type', 415, 12, undefined],
    ['too_large', 413, 8, undefined],
    ['too_slow', 503, 14, 3],
    ['rate_limited', 429, 8, 3],
    ['queue_full', 429, 8, 3],
    ['staging_away', 503, 14, 3],
    ['no_room', 503, 14, 3],
    ['disk_full', 503, 14, 3],
    ['overloaded', 503, 14, 3],
    ['shutting_down', 503, 14, 3],
    ['bug', 503, 14, 3],
  ])
})

test('waits are whole seconds from 1 to 5, spread over all of them', () => {
  const waits = [0, 0.19, 0.2, 0.5, 0.79, 0.8, 0.999999].map(
    (drawn) => refusalAnswer({ kind: 'no_room', message: '' }, () => drawn).retryAfterSeconds,
  )
  expect(waits).toEqual([1, 1, 2, 3, 4, 5, 5])
})

test('a wait that the rate limit knows is the least that is told, up to what an SDK can still wait', () => {
  const waits = [1, 4, 60].map((retryAfterSeconds) =>
    [0, 0.5, 0.999999].map(
      (drawn) =>
        refusalAnswer({ kind: 'rate_limited', message: '', retryAfterSeconds }, () => drawn)
          .retryAfterSeconds,
    ),
  )
  expect(waits).toEqual([
    [1, 3, 5],
    [4, 5, 5],
    [5, 5, 5],
  ])
})

test('D8: who is refused while the database is away comes again four seconds after it came, or eight', () => {
  const waits = [0, 10, 1_250, 3_999, 4_000, 5_010, 7_100].map(
    (waitedMs) => refusalAnswer({ kind: 'staging_away', message: '', waitedMs }, () => 0.5).retryAfterSeconds,
  )
  expect(waits).toEqual([4, 4, 3, 1, 4, 3, 1])
})

test('what was dropped is told with its count and the policy, and nothing is told of what was taken', () => {
  expect([
    partialSuccess({ kind: 'dropped', items: 3, policy: 'drop' }),
    partialSuccess({ kind: 'dropped', items: 1, policy: 'sample' }),
    partialSuccess({ kind: 'dropped', items: 0, policy: 'drop' }),
    partialSuccess({ kind: 'accepted' }),
  ]).toEqual([
    {
      rejected: 3,
      message: 'the queue is full and the overflow policy is drop: nothing of this request was kept',
    },
    {
      rejected: 1,
      message: 'the queue is full and the overflow policy is sample: this request was not in the sample',
    },
    undefined,
    undefined,
  ])
})
