/**
 * How connections fall on two processes that share a port by node:cluster, in turns and as the operating system has it:
 * `node stress/bench/spread.ts`. Prints how many of 32 keep-alive connections the busier process has, and how many requests a
 * second are answered when each opens a connection.
 */
import { type ChildProcess, fork } from 'node:child_process'
import cluster from 'node:cluster'
import { once } from 'node:events'
import http from 'node:http'
import { setTimeout as wait } from 'node:timers/promises'
import { renderTable } from '../report.ts'

const processes = 2
const connections = 32
const rounds = 20
const clients = 8
const newConnectionsMs = 3_000
const policies = { 'in turns': cluster.SCHED_RR, 'operating system': cluster.SCHED_NONE }

/** One that answers with its process id, and tells its supervisor the port. */
function serve(): void {
  const server = http.createServer((_, answer) => answer.end(String(process.pid)))
  server.keepAliveTimeout = 60_000
  server.listen(0, '127.0.0.1', () => process.send?.((server.address() as { port: number }).port))
}

/** Begins the processes, and tells whoever began this one the port. */
async function supervise(policy: string): Promise<void> {
  cluster.schedulingPolicy = Number(policy)
  cluster.setupPrimary({ args: [] })
  const ports = Array.from({ length: processes }, async () => (await once(cluster.fork(), 'message'))[0])
  process.send?.((await Promise.all(ports))[0])
}

async function ask(port: number, agent: http.Agent): Promise<string> {
  const [answer] = (await once(http.get({ port, host: '127.0.0.1', agent }), 'response')) as [
    http.IncomingMessage,
  ]
  return (await answer.toArray()).join('')
}

/** How many connections the busier process gets in each round, the least first. */
async function spread(port: number, gapMs: number): Promise<number[]> {
  const shares: number[] = []
  for (let round = 0; round < rounds; round++) {
    const agents = Array.from({ length: connections }, () => new http.Agent({ keepAlive: true }))
    const asked: Promise<string>[] = []
    for (const agent of agents) {
      asked.push(ask(port, agent))
      if (gapMs > 0) await wait(gapMs)
    }
    const counts = Map.groupBy(await Promise.all(asked), (pid) => pid)
    shares.push(Math.max(...[...counts.values()].map(({ length }) => length)))
    for (const agent of agents) agent.destroy()
  }
  return shares.sort((a, b) => a - b)
}

async function newConnectionsPerSecond(port: number): Promise<number> {
  const untilMs = performance.now() + newConnectionsMs
  let answered = 0
  const client = async () => {
    for (; performance.now() < untilMs; answered++) await ask(port, new http.Agent())
  }
  await Promise.all(Array.from({ length: clients }, client))
  return answered / (newConnectionsMs / 1000)
}

async function measure(): Promise<void> {
  const rows = [['connections go', 'opened at once', '5 ms apart', 'new connections/s']]
  for (const [name, policy] of Object.entries(policies)) {
    const supervisor: ChildProcess = fork(import.meta.filename, [String(policy)])
    const [port] = (await once(supervisor, 'message')) as [number]
    const cells = []
    for (const gapMs of [0, 5]) {
      const shares = await spread(port, gapMs)
      cells.push(`median ${shares[rounds / 2]}, at worst ${shares.at(-1)}`)
    }
    rows.push([name, ...cells, (await newConnectionsPerSecond(port)).toFixed(0)])
    supervisor.kill()
    await once(supervisor, 'exit')
  }
  console.log(renderTable(rows, [20, 40, 40, 20]))
}

const [policy] = process.argv.slice(2)
if (cluster.isWorker) serve()
else if (policy === undefined) await measure()
else await supervise(policy)
