import { expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { type Ingress, oneSpan, send, serveIngress } from './serve.ts'

const never = new AbortController().signal
/** Of so many draws from five each is missing less than once in ten million runs. */
const DRAWS = 100

/** Each outcome after which a sender shall come again. */
const retried: {
  what: string
  status: number
  /** Whether the seconds are drawn, and not counted from when the request came. */
  drawn: boolean
  options?: Parameters<typeof serveIngress>[0]
  /** Answers how to undo it, where a stop would wait for it. */
  arrange?: (ingress: Ingress) => Promise<() => void> | void
}[] = [
  { what: 'a limited rate', status: 429, drawn: true, options: { rateLimit: { perSecond: 1, burst: 1 } } },
  {
    what: 'a full queue',
    status: 429,
    drawn: false,
    arrange: (ingress) => ingress.decide({ outcome: 'reject' }),
  },
  {
    what: 'a database that is away',
    status: 503,
    drawn: false,
    arrange: ({ stager }) => {
      stager.failure = new Failure('outage', 'connection refused', { code: 'ECONNREFUSED' })
    },
  },
  {
    what: 'a bug of ours',
    status: 503,
    drawn: true,
    arrange: ({ stager }) => {
      stager.failure = new TypeError('x is not a function')
    },
  },
  {
    what: 'a disk nearly full',
    status: 503,
    drawn: true,
    options: { refusal: () => 'less than 1 GiB is free' },
  },
  { what: 'bytes in flight used up', status: 503, drawn: true, options: { inflightBytes: 10 } },
  {
    what: 'shutting down',
    status: 503,
    drawn: true,
    arrange: async ({ port, stager, http }) => {
      const release = stager.hold()
      send(port, { body: oneSpan }).catch(() => undefined)
      await stager.whenAppended(1)
      void http.stop(never)
      return release
    },
  },
]

for (const { what, status, drawn, options, arrange } of retried) {
  test(`D8: Retry-After for ${what} is whole seconds${drawn ? ', and spread over all' : ''} from 1 to 5`, async () => {
    await using ingress = await serveIngress(options)
    const undo = await arrange?.(ingress)
    if (options?.rateLimit !== undefined) await send(ingress.port, { body: oneSpan })
    const answers = await Promise.all(
      Array.from({ length: DRAWS }, () => send(ingress.port, { body: oneSpan })),
    )
    undo?.()
    // At the limit of the rate one may have got the token of the second that all this takes.
    const refused = answers.filter((answer) => answer.status === status)
    expect(refused.length).toBeGreaterThan(DRAWS - 10)
    const told = new Set(refused.map(({ headers }) => headers['retry-after']))
    for (const seconds of told) expect(seconds).toMatch(/^[1-5]$/)
    if (drawn) expect(told.size).toBe(5)
  })
}

test('D8: a rate that has no token for an hour still says 5, since an SDK drops what must wait longer', async () => {
  await using ingress = await serveIngress({ rateLimit: { perSecond: 0.001, burst: 1 } })
  const answers = []
  for (let sent = 0; sent < 20; sent++) answers.push(await send(ingress.port, { body: oneSpan }))
  expect(answers.map(({ status, headers }) => [status, headers['retry-after']])).toEqual([
    [200, undefined],
    ...Array(19).fill([429, '5']),
  ])
})

test('D8: what is not retried says nothing of when to come again', async () => {
  await using ingress = await serveIngress({ maxBodyBytes: 100 })
  const answers = [
    await send(ingress.port, { body: oneSpan }),
    await send(ingress.port, { body: Buffer.from('1234') }),
    await send(ingress.port, { path: '/nope' }),
    await send(ingress.port, { method: 'GET' }),
    await send(ingress.port, { body: Buffer.alloc(101) }),
    await send(ingress.port, { headers: {}, body: oneSpan }),
  ]
  expect(answers.map(({ status, headers }) => [status, headers['retry-after']])).toEqual(
    [200, 400, 404, 405, 413, 415].map((status) => [status, undefined]),
  )
})
