import { setTimeout as wait } from 'node:timers/promises'
import { CopyConditions } from 'minio'
import { clientOf } from '../store-reader.ts'
import { until } from '../waiting.ts'
import { expect, type Fault } from './fault.ts'

const backWithinMs = 20_000
const stateMs = 4_000
const deleteTries = 10

/** What is in the bucket is kept elsewhere and put back: nobody can reconcile what somebody threw away. */
const bucketDeleted: Fault = {
  name: 'the bucket is deleted',
  async bring({ scene }) {
    const { stage, machine } = scene
    const client = clientOf(machine.minio)
    const kept = `${stage.bucket.slice(0, 50)}-kept`
    await client.makeBucket(kept)
    const move = async (key: string, from: string, to: string) => {
      await client.copyObject(to, key, `/${from}/${key}`, new CopyConditions())
      await client.removeObject(from, key)
    }
    expect(await until(async () => (await stage.store.list()).size > 0, backWithinMs), 'nothing was stored')
    let deleted = false
    // Nothing new comes while it is emptied.
    stage.proxy.set({ kind: 'requests held' })
    for (let tries = 0; tries < deleteTries && !deleted; tries++) {
      for (const key of await stage.store.list()) await move(key, stage.bucket, kept)
      deleted = await client.removeBucket(stage.bucket).then(
        () => true,
        () => false,
      )
    }
    stage.proxy.set({ kind: 'open' })
    expect(deleted, `the bucket was never empty in ${deleteTries} tries`)
    const back = await until(async () => (await stage.store.list()).size > 0, backWithinMs)
    expect(back && (await client.bucketExists(stage.bucket)), 'the bucket was not made again and filled')
    expect(await scene.moreStored(60, backWithinMs), 'afterwards 60 requests were not answered 200')
    let moved = 0
    for await (const { name } of client.listObjectsV2(kept, '', true) as AsyncIterable<{ name?: string }>) {
      if (name === undefined) continue
      await move(name, kept, stage.bucket)
      moved++
    }
    await client.removeBucket(kept)
    const seen = scene.workers.reduce(
      (sum, { log }) => sum + log.filter((line) => JSON.stringify(line).includes('NoSuchBucket')).length,
      0,
    )
    return `made again; ${seen} lines of log name NoSuchBucket; ${moved} objects put back`
  },
}

/** The store takes the secret of the running program no more, for some seconds. */
const wrongCredentials: Fault = {
  name: 'wrong credentials of the store',
  async bring({ scene }) {
    const { machine, ledger } = scene
    const right = machine.minio.secretKey
    const refused = () => ledger.select(({ answer }) => answer.kind === 'answered' && answer.status !== 200)
    await machine.crashMinio()
    await machine.restartMinio('another-secret-than-before')
    await wait(stateMs)
    const lines = scene.workers.flatMap(({ log }) =>
      log.filter((line) => JSON.stringify(line).includes('SignatureDoesNotMatch')),
    )
    await machine.crashMinio()
    await machine.restartMinio(right)
    expect(lines.length > 0, 'no worker said that its secret is not taken')
    expect(
      lines.every(({ level }) => level === 'error' || level === 'warn'),
      'a worker said it in a whisper',
    )
    const reasons = new Set(
      lines.filter(({ event }) => event === 'batch_persist_failed').map(({ reason }) => reason),
    )
    expect(
      reasons.size === 1 && reasons.has('configuration'),
      `batch_persist_failed with the reasons ${[...reasons].join(', ') || 'none'}`,
    )
    expect(refused().length === 0, 'a sender heard of it')
    expect(await scene.moreStored(60, backWithinMs), 'afterwards 60 requests were not answered 200')
    return `${lines.length} lines of log say SignatureDoesNotMatch, reason configuration; ${ledger.describe()}`
  },
}

export const storeStateFaults: readonly Fault[] = [bucketDeleted, wrongCredentials]
