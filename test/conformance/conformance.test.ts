import { expect, test } from 'vitest'
import { serveIngress } from '../ingress/serve.ts'
import { runConformance } from './run-conformance.ts'

test('all 67 conformance cases get the answer that OTLP asks for', async () => {
  await using ingress = await serveIngress()
  const said = await runConformance(`http://127.0.0.1:${ingress.port}`)
  expect(said ?? ['67 passed, 0 failed']).toEqual(['67 passed, 0 failed'])
}, 90_000)
