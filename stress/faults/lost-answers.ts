import { until } from '../waiting.ts'
import { expect, type Fault } from './fault.ts'
import type { FaultProxy } from './proxy.ts'
import type { Scene } from './scene.ts'

const losses = 12
const withinMs = 20_000

interface LostAnswer {
  name: string
  proxy: (scene: Scene) => FaultProxy
  wanted: (answer: string) => boolean
}

/** The connection ends exactly when the answer is to be passed on: what was asked for is done, and nobody knows. */
function lostAnswer({ name, proxy, wanted }: LostAnswer, check: (scene: Scene) => Promise<string>): Fault {
  return {
    name,
    async bring({ scene }) {
      const lost = proxy(scene).loseAnswers({ wanted, count: losses })
      const over = AbortSignal.timeout(withinMs)
      await Promise.race([
        lost.done,
        new Promise((resolve) => over.addEventListener('abort', resolve, { once: true })),
      ])
      lost.stop()
      expect(lost.count === losses, `${lost.count} answers were there to be lost, not ${losses}`)
      expect(await scene.moreStored(60, withinMs), 'afterwards 60 requests were not answered 200')
      return `${lost.count} answers lost; ${await check(scene)}`
    },
  }
}

export const lostAnswerFaults: readonly Fault[] = [
  lostAnswer(
    {
      name: 'a commit of staging whose answer is lost',
      proxy: ({ databaseProxy }) => databaseProxy,
      wanted: (text) => text.startsWith('COPY ingestion_queue'),
    },
    async ({ ledger }) => {
      const refused = ledger.countStatus(503)
      expect(refused > 0, 'nobody was told that the answer was lost')
      return `${refused} × 503`
    },
  ),
  lostAnswer(
    {
      name: 'a commit of a settle whose answer is lost',
      proxy: ({ databaseProxy }) => databaseProxy,
      wanted: (text) => text.includes('INSERT INTO stored_object'),
    },
    async ({ workers }) => {
      const seen = () => workers.reduce((sum, worker) => sum + worker.countEvents('batch_settled_before'), 0)
      expect(await until(() => seen() > 0, withinMs), 'no worker found its batch settled before')
      return `${seen()} × batch_settled_before`
    },
  ),
  lostAnswer(
    {
      name: 'a claim whose answer is lost',
      proxy: ({ databaseProxy }) => databaseProxy,
      wanted: (text) => text.includes('INSERT INTO ingestion_batch'),
    },
    async () => 'their leases ran out',
  ),
  lostAnswer(
    {
      name: 'a put whose answer is lost (H7)',
      proxy: ({ stage }) => stage.proxy,
      wanted: (answer) => /^PUT \/[^/]+\/.+ 200$/.test(answer),
    },
    async ({ workers }) => {
      const seen = workers.reduce(
        (sum, worker) => sum + worker.countEvents('batch_persist_failed', 'outage'),
        0,
      )
      expect(seen > 0, 'no worker was told that its put broke')
      return `${seen} batches tried again`
    },
  ),
]
