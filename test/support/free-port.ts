import { once } from 'node:events'
import net from 'node:net'

/** Below the ports that Linux gives to outgoing connections and to whoever asks for any (32,768 to 60,999). */
const [firstPort, endPort] = [20_000, 32_768]
const given = new Set<number>()

/**
 * A port of 127.0.0.1 on which nobody listened a moment ago, and another one each time. Nobody is given it by chance in
 * between: a port that the system chose would be free for the next connection as soon as it is closed here.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = firstPort + Math.floor(Math.random() * (endPort - firstPort))
    if (given.has(port)) continue
    given.add(port)
    if (await isFree(port)) return port
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = net.createServer()
  try {
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    return false
  }
  server.close()
  await once(server, 'close')
  return true
}
