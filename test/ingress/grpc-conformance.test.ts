import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import type { Signal } from '../../src/otlp/signal.ts'
import { beginCall, connectHttp2, exportPathOf, framed, serveGrpc } from './grpc-serve.ts'
import { PROTOBUF } from './serve.ts'

/** One case of `../shared/conformance/cases.mjs`: a request over HTTP, and what must come back. */
interface HttpCase {
  id: string
  method: string
  path: string
  headers: Record<string, string>
  body?: Buffer
  want: { status: number; code?: number }
}

const casesFile = fileURLToPath(new URL('../../../shared/conformance/cases.mjs', import.meta.url))
/** What a status of HTTP is as a status of gRPC. */
const codes: Record<number, number> = { 200: 0, 400: 3, 404: 12, 413: 8 }

/** The cases that say something of gRPC: whole messages in protobuf. */
async function readCases(): Promise<HttpCase[]> {
  const { cases } = (await import(casesFile)) as { cases: HttpCase[] }
  return cases.filter(({ method, headers }) => method === 'POST' && headers['content-type'] === PROTOBUF)
}

function callOf({ path, headers, body = Buffer.alloc(0) }: HttpCase) {
  const encoding = headers['content-encoding']
  const signal = path.replace('/v1/', '') as Signal
  return {
    headers: {
      ':path': signal === ('nope' as Signal) ? '/nope.Nope/Export' : exportPathOf(signal),
      ...(encoding !== undefined && { 'grpc-encoding': encoding }),
    },
    body: framed(Buffer.from(body), encoding === undefined || encoding === 'identity' ? 0 : 1),
  }
}

test('each conformance case in protobuf gets over gRPC the status that its HTTP status stands for', async () => {
  if (!existsSync(casesFile)) {
    process.stdout.write(
      `The conformance cases were not run: they are expected beside this checkout, at ${casesFile}\n`,
    )
    return
  }
  await using ingress = await serveGrpc()
  await using session = await connectHttp2(ingress.port)
  const cases = await readCases()
  expect(cases.length).toBeGreaterThanOrEqual(30)
  const answered: Record<string, number | undefined> = {}
  for (const one of cases) answered[one.id] = (await beginCall(session, callOf(one)).reply).status
  const wanted = cases.map(({ id, headers, want }) => {
    // gRPC has a status of its own for a compression that is not known.
    const isUnknown = headers['content-encoding'] === 'x-nope'
    return [id, isUnknown ? 12 : codes[want.status]]
  })
  expect(answered).toEqual(Object.fromEntries(wanted))
  expect(ingress.budget.usedBytes).toBe(0)
})
