import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { buffer } from 'node:stream/consumers'
import { setTimeout as wait } from 'node:timers/promises'
import zlib from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { objectsOfBatch } from '../../src/sink/object.ts'
import { compareWithPython, decodeWithPython, hasPython } from '../support/python.ts'
import { described, read } from './programs.ts'
import { traceRows } from './requests.ts'

const batchId = '019cbb4b-4b3f-7abc-8def-0123456789ab'
const rows = traceRows('gzip')
const requests = Buffer.concat(rows.map(({ request }) => request))
const [object] = objectsOfBatch(batchId, rows)
const body = object?.body ?? Buffer.alloc(0)
const firstRequest = rows[0]?.request ?? Buffer.alloc(0)
const firstMemberBytes = rows[0]?.bytes ?? 0

let folder: string
let file: string

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'sluice-readers-'))
  file = path.join(folder, 'object.binpb.gz')
  await writeFile(file, body)
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const pythonLine = (unpack: string) =>
  `import gzip, hashlib, sys, zlib; packed = open(sys.argv[1], "rb").read(); out = ${unpack}; ` +
  'print(len(out), hashlib.sha256(out).hexdigest(), end="")'

describe('an object of 25 gzip members is read to its end', () => {
  test('C4: by Node, at once and as a stream', async () => {
    expect(zlib.gunzipSync(body).equals(requests)).toBe(true)
    const streamed = await buffer(createReadStream(file, { highWaterMark: 100 }).pipe(zlib.createGunzip()))
    expect(streamed.equals(requests)).toBe(true)
  })

  test('by zcat', async () => {
    expect((await read('zcat', [file])).equals(requests)).toBe(true)
  })

  test("by Python's gzip", async () => {
    const words = ['-I', '-c', pythonLine('gzip.decompress(packed)'), file]
    expect((await read('python3', words)).toString()).toBe(described(requests))
  })

  test("by Go's compress/gzip", async () => {
    const words = ['run', path.join(import.meta.dirname, 'gunzip.go'), 'file', file]
    expect((await read('go', words)).toString()).toBe(described(requests))
  })

  test("by Java's GZIPInputStream over a file", async () => {
    const words = [path.join(import.meta.dirname, 'Gunzip.java'), 'file', file]
    expect((await read('java', words)).toString()).toBe(described(requests))
  })

  test('request by request, at the offsets of the catalog', () => {
    const unpacked = object?.offsets.map((offset, index) => {
      return zlib.gunzipSync(body.subarray(offset, object.offsets[index + 1] ?? body.length))
    })
    expect(unpacked).toEqual(rows.map(({ request }) => request))
  })
})

describe('an object of 25 gzip members is cut, without an error,', () => {
  test("C4: after the first by Python's zlib.decompress and decompressobj", async () => {
    for (const unpack of ['zlib.decompressobj(31).decompress(packed)', 'zlib.decompress(packed, 31)']) {
      expect((await read('python3', ['-I', '-c', pythonLine(unpack), file])).toString()).toBe(
        described(firstRequest),
      )
    }
  })

  /**
   * JDK-7036144: between two members it asks the stream whether more is there, and a network stream has nothing yet.
   * A JDK that waits instead is welcome.
   */
  test("C4: where Java's GZIPInputStream has to wait for the network, or read to its end", async () => {
    const server = net.createServer(async (socket) => {
      socket.setNoDelay(true).on('error', () => socket.destroy())
      socket.write(body.subarray(0, firstMemberBytes))
      await wait(500)
      socket.end(body.subarray(firstMemberBytes))
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    try {
      const { port } = server.address() as net.AddressInfo
      const words = [path.join(import.meta.dirname, 'Gunzip.java'), 'port', String(port)]
      const printed = (await read('java', words)).toString()
      expect([described(firstRequest), described(requests)]).toContain(printed)
      console.log(
        printed === described(requests)
          ? 'This Java waits for all gzip members of a network stream.'
          : 'This Java reads only the first gzip member of a slow network stream: read the object into memory first.',
      )
    } finally {
      server.close()
    }
  })
})

describe("Python's opentelemetry-proto", () => {
  test.each(['gzip', 'identity'] as const)(
    'reads an object of 25 %s requests as the requests sent',
    async (encoding) => {
      if (!(await hasPython())) {
        console.log('python3 is not here: no other implementation than ours has read this object.')
        return
      }
      const sent = traceRows(encoding)
      const [stored] = objectsOfBatch(batchId, sent)
      if (stored === undefined) throw new Error('no object')
      const whole = { signal: 'traces', encoding, body: stored.body } as const
      const parts = sent.map(({ payload }) => ({ encoding, body: payload }))
      const [first, ...others] = parts
      const [decoded] = await decodeWithPython([whole])
      expect(JSON.stringify(decoded).match(/"name":"span-\d+"/g)).toEqual(
        sent.map((_, n) => `"name":"span-${n}"`),
      )
      const verdicts = await compareWithPython([
        { ...whole, requests: parts },
        { ...whole, requests: others },
        { ...whole, requests: first === undefined ? [] : [...others, first] },
        { ...whole, encoding: 'identity', body: Buffer.from([0x0a, 0x05]), requests: [] },
      ])
      expect(verdicts).toEqual([
        null,
        'the object differs from its requests: 25 resources in it, 24 sent',
        'the object differs from its requests: 25 resources in it, 25 sent',
        expect.stringMatching(/^the object cannot be read: /),
      ])
    },
    240_000,
  )
})
