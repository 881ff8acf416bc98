import { constants, crc32, createZstdCompress, deflateRawSync } from 'node:zlib'
import { beforeAll, expect, test } from 'vitest'
import { chunk, head, lastChunk, PROTOBUF, RawConnection, send, serveIngress } from './serve.ts'

const MIB = 1024 * 1024
const GIB = 1024 * MIB
const zeros = Buffer.alloc(MIB)

/** 1 GiB of zeros in one gzip member: blocks that end at a byte can be repeated (RFC 1951, 3.2.3). */
function gzipBomb(toldBytes: number): Buffer {
  const block = deflateRawSync(zeros, { level: 9, finishFlush: constants.Z_FULL_FLUSH })
  let checksum = 0
  for (let at = 0; at < GIB; at += MIB) checksum = crc32(zeros, checksum)
  const trailer = Buffer.alloc(8)
  trailer.writeUInt32LE(checksum, 0)
  trailer.writeUInt32LE(toldBytes, 4)
  const start = Buffer.from('1f8b08000000000002ff', 'hex')
  const lastBlock = Buffer.from('0300', 'hex')
  return Buffer.concat([start, ...Array<Buffer>(GIB / MIB).fill(block), lastBlock, trailer])
}

async function zstdBomb(): Promise<Buffer> {
  const packer = createZstdCompress()
  const parts: Buffer[] = []
  packer.on('data', (part: Buffer) => parts.push(part))
  for (let at = 0; at < GIB; at += MIB) {
    if (!packer.write(zeros)) await new Promise((resolve) => packer.once('drain', resolve))
  }
  packer.end()
  await new Promise((resolve) => packer.once('end', resolve))
  return Buffer.concat(parts)
}

const bombs: Record<string, { encoding: string; body: Buffer }> = {}
beforeAll(async () => {
  bombs.gzip = { encoding: 'gzip', body: gzipBomb(GIB) }
  bombs['gzip that claims to be small'] = { encoding: 'gzip', body: gzipBomb(1_000) }
  bombs.zstd = { encoding: 'zstd', body: await zstdBomb() }
  for (const { body } of Object.values(bombs)) expect(body.length).toBeLessThan(1.1 * MIB)
})

/** Runs `work`; answers by how many MiB the process grew at most meanwhile. */
async function growthOf(work: () => Promise<unknown>): Promise<number> {
  const before = process.memoryUsage.rss()
  let most = before
  const timer = setInterval(() => {
    most = Math.max(most, process.memoryUsage.rss())
  }, 2)
  await work()
  clearInterval(timer)
  return (Math.max(most, process.memoryUsage.rss()) - before) / MIB
}

for (const name of ['gzip', 'gzip that claims to be small', 'zstd']) {
  test(`1 GiB of zeros in 1 MB of ${name} is 413 within a second, and takes no more than two bodies of memory`, async () => {
    await using ingress = await serveIngress()
    const { encoding, body } = bombs[name] ?? { encoding: '', body: zeros }
    const headers = { 'content-type': PROTOBUF, 'content-encoding': encoding }
    await send(ingress.port, { headers, body })
    const startedMs = performance.now()
    let status = 0
    const grownMib = await growthOf(async () => {
      status = (await send(ingress.port, { headers, body })).status
    })
    expect([status, ingress.budget.usedBytes, ingress.stager.appended]).toEqual([413, 0, 0])
    expect(performance.now() - startedMs).toBeLessThan(1_000)
    expect(grownMib).toBeLessThan(48)
  })

  test(`twenty of them at once in ${name} are 413, or 503 while the others fill the budget, and memory is bounded by it`, async () => {
    await using ingress = await serveIngress()
    const { encoding, body } = bombs[name] ?? { encoding: '', body: zeros }
    const headers = { 'content-type': PROTOBUF, 'content-encoding': encoding }
    const statuses: number[] = []
    const grownMib = await growthOf(async () => {
      const answers = await Promise.all(
        Array.from({ length: 20 }, () => send(ingress.port, { headers, body })),
      )
      statuses.push(...answers.map(({ status }) => status))
    })
    expect([...new Set(statuses)].filter((status) => status !== 503)).toEqual([413])
    expect([ingress.budget.usedBytes, ingress.stager.appended]).toEqual([0, 0])
    // 90 MiB were measured, of 20 GiB; the budget is 128.
    expect(grownMib).toBeLessThan(128 + 32)
  })
}

test('a bomb in chunks is 413 like one of a declared length', async () => {
  await using ingress = await serveIngress()
  const connection = new RawConnection(ingress.port)
  connection.write(head('Transfer-Encoding: chunked', 'Content-Encoding: gzip'))
  connection.write(chunk(bombs.gzip?.body ?? zeros)).write(lastChunk)
  await connection.until(/^HTTP\/1\.1 413 /)
  connection.socket.destroy()
})
