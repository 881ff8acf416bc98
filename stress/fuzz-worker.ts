import { parentPort, workerData } from 'node:worker_threads'
import { type FuzzOptions, type FuzzTally, runFuzz } from './fuzz-run.ts'

/** What a worker tells: how far it is, and at its end what it found. */
export type FuzzNews = { readonly tried: number } | { readonly tally: FuzzTally }

const port = parentPort
if (port === null) throw new Error('fuzz-worker.ts is started by fuzz.ts')
const say = (news: FuzzNews) => port.postMessage(news)
const options = workerData as Pick<FuzzOptions, 'seed' | 'from' | 'bodies'>
say({ tally: await runFuzz({ ...options, onProgress: (tried) => say({ tried }) }) })
