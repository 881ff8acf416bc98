import { setTimeout as wait } from 'node:timers/promises'
import { expect, type Fault } from './fault.ts'
import type { FaultProxy, ProxyMode } from './proxy.ts'
import type { Scene } from './scene.ts'

const brokenMs = 5_000
const backWithinMs = 20_000

/** Connections that break in an ugly way for some seconds. */
function broken(
  name: string,
  proxyOf: (scene: Scene) => FaultProxy,
  modes: readonly ProxyMode[],
  { databaseTls = false } = {},
): Fault {
  return {
    name,
    databaseTls,
    async bring({ scene }) {
      const proxy = proxyOf(scene)
      for (const mode of modes) {
        proxy.set(mode)
        await wait(brokenMs / modes.length)
      }
      proxy.set({ kind: 'open' })
      // What hangs in the middle of something ends with its own deadline.
      expect(await scene.moreStored(60, backWithinMs), 'afterwards 60 requests were not answered 200')
      return scene.ledger.describe()
    },
  }
}

/** One side of every connection hears an end again and again, the other one nothing. */
function halfClosed(name: string, proxyOf: (scene: Scene) => FaultProxy): Fault {
  return {
    name,
    async bring({ scene, random }) {
      const proxy = proxyOf(scene)
      let times = 0
      for (const untilMs = performance.now() + brokenMs; performance.now() < untilMs; times++) {
        proxy.end('half-closed', random.pick(['to client', 'to server']))
        await wait(random.between(100, 500))
      }
      expect(await scene.moreStored(60, backWithinMs), 'afterwards 60 requests were not answered 200')
      return `${times} times; ${scene.ledger.describe()}`
    },
  }
}

const database = ({ databaseProxy }: Scene) => databaseProxy
const store = ({ stage }: Scene) => stage.proxy

export const brokenConnectionFaults: readonly Fault[] = [
  // Encrypted, as over any network: its plain protocol has no checksum by which anybody could notice.
  broken(
    'garbled connections to PostgreSQL, over TLS',
    database,
    [
      { kind: 'garbled', direction: 'to client', bytesBetween: 3_000 },
      { kind: 'garbled', direction: 'to server', bytesBetween: 3_000 },
    ],
    { databaseTls: true },
  ),
  broken('connections to PostgreSQL that end in mid-message', database, [
    { kind: 'ended', direction: 'to server', bytesMax: 6_000, how: 'reset' },
    { kind: 'ended', direction: 'to client', bytesMax: 6_000, how: 'closed' },
    { kind: 'ended', direction: 'to server', bytesMax: 6_000, how: 'closed' },
    { kind: 'ended', direction: 'to client', bytesMax: 6_000, how: 'reset' },
  ]),
  halfClosed('half-closed connections to PostgreSQL', database),
  broken('garbled requests to MinIO and answers of MinIO', store, [
    { kind: 'garbled', direction: 'to server', bytesBetween: 2_000 },
    { kind: 'garbled', direction: 'to client', bytesBetween: 100 },
  ]),
  broken('connections to MinIO that end in mid-message', store, [
    { kind: 'ended', direction: 'to server', bytesMax: 6_000, how: 'reset' },
    { kind: 'ended', direction: 'to client', bytesMax: 1_000, how: 'closed' },
    { kind: 'ended', direction: 'to server', bytesMax: 6_000, how: 'closed' },
    { kind: 'ended', direction: 'to client', bytesMax: 1_000, how: 'reset' },
  ]),
  halfClosed('half-closed connections to MinIO', store),
]
