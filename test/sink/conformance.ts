import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { checksumOf } from '../../src/sink/object-key.ts'
import type { ObjectStore } from '../../src/sink/object-store.ts'

/** Opens a store at a place that nobody used before; `again` opens another one at the same place. */
export interface Place {
  store: ObjectStore
  again(): ObjectStore
}

/** What holds for every `ObjectStore`. Call it inside of `describe`. */
export function storeConformance(newPlace: () => Promise<Place>): void {
  let place: Place
  let store: ObjectStore
  const opened: ObjectStore[] = []
  const openAgain = () => {
    const other = place.again()
    opened.push(other)
    return other
  }

  beforeEach(async () => {
    place = await newPlace()
    store = place.store
    opened.push(store)
    await store.prepare()
  })
  afterEach(async () => {
    await Promise.all(opened.splice(0).map((each) => each.close()))
  })

  const put = (key: string, body: Buffer, into = store) => into.put(key, body, checksumOf(body))
  const keysBelow = async (prefix: string) => {
    const listed = await all(store.list(prefix))
    return listed.map(({ key }) => key).toSorted()
  }

  test('preparing twice, and by eight at once, is success', async () => {
    await store.prepare()
    await Promise.all(Array.from({ length: 8 }, () => openAgain().prepare()))
  })

  test('a place is prepared by eight at once that was not there before', async () => {
    const fresh = await newPlace()
    opened.push(fresh.store)
    const others = Array.from({ length: 7 }, () => fresh.again())
    opened.push(...others)
    await Promise.all([fresh.store, ...others].map((each) => each.prepare()))
    const body = Buffer.from('there')
    await put('a/b', body, fresh.store)
    expect(await others[0]?.get('a/b')).toEqual(body)
  })

  test('what was put is got, in whole and in ranges, and described by its size and checksum', async () => {
    const body = randomBytes(300_000)
    await put('traces/tenant=a/x.binpb', body)
    expect(await store.get('traces/tenant=a/x.binpb')).toEqual(body)
    const ranges = [
      [0, 1],
      [0, 300_000],
      [17, 4711],
      [299_999, 300_000],
      [299_990, 400_000],
      [5, 5],
      [300_000, 300_010],
    ] as const
    for (const [start, end] of ranges) {
      expect(await store.get('traces/tenant=a/x.binpb', { start, end })).toEqual(body.subarray(start, end))
    }
    const { modifiedAt, ...info } = (await store.stat('traces/tenant=a/x.binpb')) ?? {}
    expect(info).toEqual({ key: 'traces/tenant=a/x.binpb', bytes: 300_000, checksum: checksumOf(body) })
    expect(Math.abs(Date.now() - Number(modifiedAt))).toBeLessThan(60_000)
  })

  test('an object of no bytes is an object', async () => {
    await put('empty', Buffer.alloc(0))
    expect(await store.get('empty')).toEqual(Buffer.alloc(0))
    expect(await store.get('empty', { start: 0, end: 10 })).toEqual(Buffer.alloc(0))
    expect((await store.stat('empty'))?.bytes).toBe(0)
  })

  test('an object of 80 MiB is put and got in one piece', async () => {
    const body = randomBytes(80 * 1024 * 1024)
    await put('large', body)
    expect(body.equals((await store.get('large')) ?? Buffer.alloc(0))).toBe(true)
    expect((await store.stat('large'))?.checksum).toBe(checksumOf(body))
  })

  test('what is not there is undefined, and removing it is success', async () => {
    expect(await store.get('no/such')).toBeUndefined()
    expect(await store.get('no/such', { start: 1, end: 1 })).toBeUndefined()
    expect(await store.stat('no/such')).toBeUndefined()
    await store.remove('no/such')
  })

  test('a removed object is gone, and its neighbour is not', async () => {
    await put('a/1', Buffer.from('one'))
    await put('a/2', Buffer.from('two'))
    await store.remove('a/1')
    expect(await store.get('a/1')).toBeUndefined()
    expect(await keysBelow('')).toEqual(['a/2'])
  })

  test('the same object put again is success', async () => {
    const body = randomBytes(1000)
    await put('a/same', body)
    await put('a/same', body)
    await put('a/same', body, openAgain())
    expect(await store.get('a/same')).toEqual(body)
  })

  test.each([
    ['of another size', Buffer.from('another size')],
    ['of the same size', Buffer.from('STORED')],
  ])(
    'another object under a key that is taken, %s, is a data failure and changes nothing',
    async (_, other) => {
      await put('a/taken', Buffer.from('stored'))
      expect(await failureOf(put('a/taken', other))).toMatchObject({
        kind: 'data',
        code: 'PreconditionFailed',
      })
      expect(await store.get('a/taken')).toEqual(Buffer.from('stored'))
    },
  )

  test('of eight different objects put at once under one key, one wins and seven fail for their data', async () => {
    const bodies = Array.from({ length: 8 }, () => randomBytes(50_000))
    const puts = await Promise.allSettled(bodies.map((body) => put('a/race', body, openAgain())))
    const winners = bodies.filter((_, index) => puts[index]?.status === 'fulfilled')
    expect(winners).toEqual([await store.get('a/race')])
    const kinds = puts.flatMap((each) => (each.status === 'rejected' ? [each.reason.kind] : []))
    expect(kinds).toEqual(Array(7).fill('data'))
  })

  test('H9: the same object put at once by two stores while a third looks is success for both', async () => {
    const body = randomBytes(200_000)
    const looker = openAgain()
    const seen = new Set<string | undefined>()
    const look = async () => {
      for (let looks = 0; looks < 20; looks += 1) seen.add((await looker.stat('a/both'))?.checksum)
    }
    await Promise.all([put('a/both', body), put('a/both', body, openAgain()), look()])
    expect([...seen].filter((checksum) => checksum !== undefined && checksum !== checksumOf(body))).toEqual(
      [],
    )
    expect((await store.stat('a/both'))?.checksum).toBe(checksumOf(body))
  })

  test('H3: every object of 1,001 is listed once, and those of 2,500 too', async () => {
    const keys = Array.from({ length: 2500 }, (_, number) => `n/${String(number).padStart(5, '0')}.binpb`)
    const body = Buffer.from('x')
    const checksum = checksumOf(body)
    const putAll = async (some: string[]) => {
      const queue = some.values()
      const worker = async () => {
        for (const key of queue) await store.put(key, body, checksum)
      }
      await Promise.all(Array.from({ length: 8 }, worker))
    }
    await putAll(keys.slice(0, 1001))
    expect(await keysBelow('n/')).toEqual(keys.slice(0, 1001))
    await putAll(keys.slice(1001))
    expect(await keysBelow('n/')).toEqual(keys)
    expect(await keysBelow('n/0100')).toEqual(keys.slice(1000, 1010))
    const [first] = await all(store.list('n/00007'))
    expect(first).toEqual({
      key: 'n/00007.binpb',
      bytes: 1,
      checksum: undefined,
      modifiedAt: expect.any(Date),
    })
  }, 60_000)

  test('a listing that is left early can be begun again', async () => {
    for (const name of ['l/1', 'l/2', 'l/3']) await put(name, Buffer.from(name))
    for await (const { bytes } of store.list('l/')) {
      expect(bytes).toBe(3)
      break
    }
    expect(await keysBelow('l/')).toEqual(['l/1', 'l/2', 'l/3'])
    expect(await keysBelow('elsewhere/')).toEqual([])
  })

  test('H4: awkward names come back from a listing as they were written', async () => {
    const steps = [
      'a&b',
      'a+b',
      'a b',
      'é',
      '%2e',
      '00012',
      '0x1f',
      '1e3',
      "it's (1)!*",
      '<x>"',
      '日本',
      'a=b;c,d',
    ]
    const keys = steps.map((step) => `odd/${step}/${step}`).toSorted()
    for (const key of keys) await put(key, Buffer.from(key))
    for (const key of keys) expect(await store.get(key)).toEqual(Buffer.from(key))
    expect(await keysBelow('')).toEqual(keys)
    expect(await keysBelow('odd/a&b/')).toEqual(['odd/a&b/a&b'])
    for (const key of keys) await store.remove(key)
    expect(await keysBelow('')).toEqual([])
  })

  test.each([
    ['no step at all', ''],
    ['an empty first step', '/a'],
    ['an empty last step', 'a/'],
    ['an empty step', 'a//b'],
    ['a way out', '../a'],
    ['a way out in the middle', 'a/../../b'],
    ['a step that is no step', './a'],
    ['a way up at the end', 'a/..'],
    ['a NUL', 'a\0b'],
    ['a backslash', 'a\\b'],
    ['a line end', 'a\nb'],
    ['half a character', 'a\ud800b'],
    ['1,025 letters', 'k'.repeat(1025)],
    ['1,026 bytes of UTF-8', 'é'.repeat(513)],
  ])('a name that no store can keep is a data failure: %s', async (_, key) => {
    const body = Buffer.from('x')
    for (const call of [put(key, body), store.get(key), store.stat(key), store.remove(key)]) {
      expect(await failureOf(call)).toMatchObject({ kind: 'configuration' })
    }
    expect(await keysBelow('')).toEqual([])
  })

  test('a call whose signal has aborted, or aborts, is an outage at once', async () => {
    const aborted = AbortSignal.abort(new Error('stop'))
    const body = Buffer.from('x')
    const calls = [
      store.prepare(aborted),
      store.put('a', body, checksumOf(body), aborted),
      store.get('a', undefined, aborted),
      store.stat('a', aborted),
      store.remove('a', aborted),
      all(store.list('', aborted)),
    ]
    for (const call of calls) {
      expect(await failureOf(call)).toMatchObject({ kind: 'outage', code: 'ABORT_ERR' })
    }
    const large = randomBytes(8 * 1024 * 1024)
    const stop = new AbortController()
    const call = store.put('late', large, checksumOf(large), stop.signal)
    stop.abort(new Error('stop'))
    expect(await failureOf(call)).toMatchObject({ kind: 'outage', code: 'ABORT_ERR' })
    await put('late', large)
    expect((await store.stat('late'))?.checksum).toBe(checksumOf(large))
  })

  test('after closing, what was under way and what comes are outages', async () => {
    const body = randomBytes(8 * 1024 * 1024)
    const underWay = failureOf(put('a', body))
    await store.close()
    expect(await underWay).toMatchObject({ kind: 'outage' })
    expect(await failureOf(store.stat('a'))).toMatchObject({ kind: 'outage' })
    await store.close()
  })
}

/** Everything that comes, in an array. */
export async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const collected: T[] = []
  for await (const item of items) collected.push(item)
  return collected
}

/** What a call failed with; an error that is no `Failure`, or a success, fails the test. */
export async function failureOf(call: Promise<unknown>): Promise<Failure> {
  const outcome = await call.then(
    () => new Error('the call succeeded'),
    (thrown: unknown) => thrown,
  )
  if (outcome instanceof Failure) return outcome
  throw outcome
}
