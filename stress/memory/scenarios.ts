import { Sender } from '../sender.ts'
import { until } from '../waiting.ts'
import { bodyBytesMax, bombs, incompressible, incompressibleJson } from './heavy-body.ts'
import { HeavySender } from './heavy-sender.ts'
import type { MemoryContext, MemoryLine, MemoryScenario } from './memory-line.ts'
import { MemoryPlay } from './memory-line.ts'
import { SlowCrowd } from './slow-crowd.ts'

const mebibyte = 1024 ** 2
const putMs = 1_000

/** 1 MiB bodies as fast as they can be sent, into a store that takes a second for each put. */
const fullSpeed: MemoryScenario = {
  name: 'full speed',
  about: '500 bodies of 1 MiB (10,000 in MODE=long), 64 at once, into a store that takes 1 s a put',
  async play(context: MemoryContext): Promise<MemoryLine> {
    const play = await MemoryPlay.begin(context, this.name)
    const ingress = await play.ingress({ STAGING_MAX_BACKLOG: '1000' })
    await play.worker()
    play.stage.proxy.set({ kind: 'slow', delayMs: putMs })
    const taken = context.long ? 10_000 : 500
    await new HeavySender('speed', play.ledger, ingress).send([incompressible(mebibyte)], 64, {
      taken,
      sent: Number.POSITIVE_INFINITY,
    })
    return play.end(['429', '503'], context.long ? 1_200_000 : 120_000)
  },
}

/** Thousands of clients that hold on to what they have, while others send. */
const slowClients: MemoryScenario = {
  name: 'slow clients',
  about:
    '2,000 connections (5,000 in MODE=long) that trickle or do not read, HTTP and gRPC, beside honest senders',
  async play(context: MemoryContext): Promise<MemoryLine> {
    const play = await MemoryPlay.begin(context, this.name)
    const ingress = await play.ingress()
    await play.worker()
    const crowd = new SlowCrowd(play.ledger, ingress, ingress.grpcPort)
    await crowd.come(context.long ? 5_000 : 2_000)
    const sender = new Sender({
      generator: { seed: context.seed, run: 'honest' },
      ledger: play.ledger,
      ingresses: [ingress],
      hangUps: false,
    })
    const honest = await sender.sendAtRate(40, context.long ? 120 : 20)
    sender.close()
    const refused = honest.filter(({ promised }) => promised !== 'stored').length
    play.require(refused === 0, `${refused} of ${honest.length} honest requests were not taken`)
    const left = crowd.leave()
    play.require(
      left.open > left.all / 2,
      `${left.open} of ${left.all} slow connections were open to the end`,
    )
    return play.end(['no answer (nobody read)'], 60_000)
  },
}

/** Bodies as large as they may be, from many clients at once. */
const largeBodies: MemoryScenario = {
  name: 'large bodies',
  about: '24 clients at once, each with bodies of 20 MiB, protobuf and JSON',
  async play(context: MemoryContext): Promise<MemoryLine> {
    const play = await MemoryPlay.begin(context, this.name)
    const ingress = await play.ingress()
    await play.worker()
    const bodies = [incompressible(bodyBytesMax), incompressibleJson(bodyBytesMax)]
    await new HeavySender('large', play.ledger, ingress).send(bodies, 24, {
      taken: context.long ? 300 : 40,
      sent: 20_000,
    })
    return play.end(['503'], 120_000)
  },
}

/** Bodies that become 20 MiB out of 20 kB, from many clients at once. */
const gzipBombs: MemoryScenario = {
  name: 'bombs',
  about: '24 clients at once with bodies of 20 MiB out of 20 kB: strings, zeros, small fields, numbers',
  async play(context: MemoryContext): Promise<MemoryLine> {
    const play = await MemoryPlay.begin(context, this.name)
    const ingress = await play.ingress()
    await play.worker()
    await new HeavySender('bombs', play.ledger, ingress).send(bombs(), 24, {
      taken: context.long ? 500 : 50,
      sent: 20_000,
    })
    return play.end(['413', '503'], 120_000)
  },
}

/** Rows as large as they may be, all of which come out of the database as text. */
const largeRows: MemoryScenario = {
  name: 'large rows',
  about: '12 rows of 20 MiB, claimed by a worker with a buffer of 64 MiB whose store takes 1 s a put',
  async play(context: MemoryContext): Promise<MemoryLine> {
    const play = await MemoryPlay.begin(context, this.name)
    const ingress = await play.ingress()
    await new HeavySender('rows', play.ledger, ingress).send([incompressible(bodyBytesMax)], 2, {
      taken: context.long ? 60 : 12,
      sent: 200,
    })
    play.stage.proxy.set({ kind: 'slow', delayMs: putMs })
    await play.worker()
    return play.end(['503'], 240_000)
  },
}

/** A batch of a worker with a larger buffer, which was killed. */
const takeOver: MemoryScenario = {
  name: 'take-over',
  about: 'a batch of 120 MiB of a killed worker with a buffer of 256 MiB, taken over by one with 64 MiB',
  async play(context: MemoryContext): Promise<MemoryLine> {
    const play = await MemoryPlay.begin(context, this.name, (120 - 64) * mebibyte)
    const ingress = await play.ingress()
    await new HeavySender('take', play.ledger, ingress).send([incompressible(mebibyte)], 8, {
      taken: 240,
      sent: 1_000,
    })
    play.stage.proxy.set({ kind: 'requests held' })
    const large = {
      PROCESSING_QUEUE_MAX_BYTES: String(256 * mebibyte),
      PROCESSING_QUEUE_MAX_DEPTH: '1000',
      BATCH_MAX_SIZE: '120',
      LEASE_SECONDS: '5',
    }
    const killed = await play.worker(large)
    const claimed = await until(async () => {
      const [found] = await play.stage.sql<{ rows: number }[]>`
        SELECT coalesce(sum(rows), 0)::int AS rows FROM ingestion_batch`
      return (found?.rows ?? 0) >= 120
    }, 30_000)
    play.require(claimed, 'the first worker did not claim a batch of 120 rows')
    await killed.kill()
    play.stage.proxy.set({ kind: 'open' })
    await play.worker()
    return play.end(['503'], 120_000)
  },
}

export const memoryScenarios: readonly MemoryScenario[] = [
  fullSpeed,
  slowClients,
  largeBodies,
  gzipBombs,
  largeRows,
  takeOver,
]
