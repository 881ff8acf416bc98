import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { usageOf } from '../processes.ts'
import type { BenchPart } from './bench.ts'
import { startSluice } from './sluice.ts'
import { startSteadyMachine } from './steady-machine.ts'

const connectionsWanted = 10_000
const connectAtOnce = 100
const idleSeconds = 20
const megabytesWanted = 400
/** An export request of nothing. */
const request =
  'POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n'

interface IdleFigures {
  connections: number
  answered: number
  megabytes: number
}

/** As many connections as may be, none of which says anything for a while; then each sends a request. */
export const idle: BenchPart = {
  name: 'idle',
  async measure({ say, settings }) {
    const machine = await startSteadyMachine(say)
    const sluice = await startSluice(machine, 'idle', settings)
    try {
      const port = Number(sluice.url.port)
      const sockets: net.Socket[] = []
      while (sockets.length < connectionsWanted) {
        const some = Array.from({ length: connectAtOnce }, () => connect(port))
        sockets.push(...(await Promise.all(some)))
      }
      say(`${sockets.length} connections, idle for ${idleSeconds} s`)
      await wait(idleSeconds * 1000)
      const answers = await Promise.all(sockets.map((socket) => ask(socket)))
      const answered = answers.filter((status) => status === 200).length
      const ingress = sluice.pids.get('ingress') ?? 0
      const megabytes = (usageOf(ingress)?.residentBytes ?? 0) / 1e6
      for (const socket of sockets) socket.destroy()
      const figures: IdleFigures = { connections: sockets.length, answered, megabytes }
      return {
        tables: [],
        goals: [
          {
            what: `${connectionsWanted} idle connections`,
            wanted: `served, under ${megabytesWanted} MB`,
            seen: `${answered} answered with 200, ${megabytes.toFixed(0)} MB`,
            isReached: answered === connectionsWanted && megabytes < megabytesWanted,
          },
        ],
        figures,
      }
    } finally {
      await sluice.close()
      await machine.stop()
    }
  },
}

async function connect(port: number): Promise<net.Socket> {
  const socket = net.connect({ host: '127.0.0.1', port })
  await once(socket, 'connect')
  // What a connection that is cut says is seen by `ask`.
  socket.on('error', () => undefined)
  return socket
}

/** The status of the answer, 0 without one. */
function ask(socket: net.Socket): Promise<number> {
  if (socket.destroyed) return Promise.resolve(0)
  return new Promise((resolve) => {
    socket.once('data', (chunk: Buffer) => resolve(Number(chunk.toString('latin1', 9, 12))))
    socket.once('close', () => resolve(0))
    socket.write(request)
  })
}
