import { unpack } from '../../src/otlp/compression.ts'
import { readRequest } from '../../src/otlp/read-request.ts'
import type { Database } from '../machine.ts'
import type { BenchBody } from './bodies.ts'

const unpackedBytesMax = 1024 * 1024
const rowsAtOnce = 50_000

/** Puts so many requests of this body into the queue, as if an ingress had staged them, and has them analysed. */
export async function fillQueue(
  sql: Database,
  body: BenchBody,
  rows: number,
  say: (line: string) => void,
): Promise<void> {
  const { bytes } = await unpack(body.encoding, body.bytes, unpackedBytesMax)
  const { items, summary } = readRequest('traces', 'protobuf', bytes)
  const encoding = body.encoding === 'gzip' ? 1 : 0
  for (let done = 0; done < rows; done += rowsAtOnce) {
    await sql`
      INSERT INTO ingestion_queue
        (signal, tenant, encoding, items, bytes, unpacked_bytes, request_id, summary, payload)
      SELECT
        1, 'default', ${encoding}, ${items}, ${body.bytes.length}, ${bytes.length}, 'bench', ${summary}, ${body.bytes}
      FROM generate_series(1, ${Math.min(rowsAtOnce, rows - done)})`
    if (done > 0 && done % (5 * rowsAtOnce) === 0) say(`${done} of ${rows} requests are in the queue`)
  }
  await sql`VACUUM (ANALYZE) ingestion_queue`
  await sql`CHECKPOINT`
}
