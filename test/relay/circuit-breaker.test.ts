import { expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { CircuitBreaker } from '../../src/relay/circuit-breaker.ts'
import { createLogger } from '../../src/telemetry/log.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { manualClock } from '../support/clock.ts'

const outage = new Failure('outage', 'the store is away')
const never = new AbortController().signal

function newCircuit() {
  const clock = manualClock()
  const lines: Record<string, unknown>[] = []
  const destination = { write: (line: string) => void lines.push(JSON.parse(line)) }
  const log = createLogger({ level: 'debug', clock, destination })
  const metrics = createMetrics()
  const circuit = new CircuitBreaker({
    sink: 'store',
    failureThreshold: 5,
    resetSeconds: 30,
    clock,
    log,
    metrics,
  })
  const failTimes = (times: number) => {
    for (let time = 0; time < times; time++) circuit.failed(outage, clock.monotonicMs())
  }
  /** Whether something may be claimed at once. */
  const mayClaim = async () => {
    let may = false
    const giveUp = new AbortController()
    const waited = circuit.wait(giveUp.signal).then(() => {
      may = !giveUp.signal.aborted
    })
    await clock.advance(0)
    giveUp.abort()
    await waited
    return may
  }
  const shown = async () =>
    (await metrics.registry.getSingleMetric('sluice_circuit_state')?.get())?.values[0]?.value
  return { clock, circuit, failTimes, mayClaim, shown, events: () => lines.map(({ event }) => event), lines }
}

test('four failures in a row, or more with a success between them, stop nobody', async () => {
  const { circuit, failTimes, mayClaim, events } = newCircuit()
  failTimes(4)
  circuit.succeeded()
  failTimes(4)
  expect([circuit.state, await mayClaim(), circuit.complaint, events()]).toEqual([
    'closed',
    true,
    undefined,
    [],
  ])
})

test('after the fifth nothing is claimed for 30 s, and that is said once, loudly, with its cause', async () => {
  const { clock, circuit, failTimes, mayClaim, shown, lines } = newCircuit()
  failTimes(5)
  failTimes(3)
  expect([circuit.state, await mayClaim(), await shown()]).toEqual(['open', false, 2])
  await clock.advance(29_999)
  expect(await mayClaim()).toBe(false)
  expect(circuit.complaint).toBe(
    'the circuit is open since 2030-01-01T00:00:00.000Z; the last failure: the store is away',
  )
  expect(lines).toMatchObject([{ event: 'circuit_open', level: 'error', reason: 'outage', failures: 5 }])
})

test('after 30 s one batch goes first: its success closes the circuit, its failure opens it for 30 s more', async () => {
  const { clock, circuit, failTimes, mayClaim, shown, events } = newCircuit()
  failTimes(5)
  await clock.advance(30_000)
  expect([await mayClaim(), circuit.state, await shown()]).toEqual([true, 'half_open', 1])
  circuit.failed(outage, clock.monotonicMs())
  expect([circuit.state, await mayClaim()]).toEqual(['open', false])
  await clock.advance(30_000)
  expect(await mayClaim()).toBe(true)
  circuit.succeeded()
  expect([circuit.state, await mayClaim(), await shown()]).toEqual(['closed', true, 0])
  expect(events()).toEqual([
    'circuit_open',
    'circuit_half_open',
    'circuit_open',
    'circuit_half_open',
    'circuit_closed',
  ])
})

test('a batch that was in hand and is stored all the same wakes who waits', async () => {
  const { clock, circuit, failTimes } = newCircuit()
  failTimes(5)
  let woken = false
  const waiting = circuit.wait(never).then(() => {
    woken = true
  })
  await clock.advance(1_000)
  expect(woken).toBe(false)
  circuit.succeeded()
  await waiting
  expect(circuit.state).toBe('closed')
})

test('tries that were under way together and fail count once, also after it has opened', async () => {
  const { clock, circuit, failTimes } = newCircuit()
  const begunMs = clock.monotonicMs()
  await clock.advance(100)
  for (let time = 0; time < 20; time++) circuit.failed(outage, begunMs)
  expect(circuit.state).toBe('closed')
  failTimes(4)
  expect(circuit.state).toBe('open')
  const waiting = circuit.wait(never)
  await clock.advance(30_000)
  await waiting
  circuit.failed(outage, begunMs)
  expect(circuit.state).toBe('half_open')
})

test('a fault of the configuration is said with what to fix at each probe, and since when', async () => {
  const { clock, circuit, failTimes, lines } = newCircuit()
  failTimes(5)
  const refused = new Failure('configuration', 'no', { code: 'AccessDenied', fix: 'Give the key the right.' })
  for (let probe = 0; probe < 3; probe++) {
    const waiting = circuit.wait(never)
    await clock.advance(30_000)
    await waiting
    circuit.failed(refused, clock.monotonicMs())
  }
  const opened = lines.filter(({ event }) => event === 'circuit_open')
  expect(new Set(opened.map(({ since }) => since))).toEqual(new Set(['2030-01-01T00:00:00.000Z']))
  expect(opened).toHaveLength(4)
  expect(opened[3]).toMatchObject({ reason: 'configuration', error: { fix: 'Give the key the right.' } })
  expect(circuit.complaint).toContain('the last failure: no. Give the key the right.')
})
