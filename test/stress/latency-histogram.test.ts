import { describe, expect, it } from 'vitest'
import { LatencyHistogram } from '../../stress/latency-histogram.ts'

describe('the latency histogram', () => {
  it('is exact up to 127 µs', () => {
    const histogram = new LatencyHistogram()
    for (let value = 0; value < 128; value++) histogram.record(value)
    expect([0.5, 0.99, 1].map((share) => histogram.quantile(share))).toEqual([63, 126, 127])
  })

  it('is right to below 1.6 % for every value, and never too low', () => {
    for (let value = 1; value < 4e9; value = Math.ceil(value * 1.37)) {
      const histogram = new LatencyHistogram()
      histogram.record(value)
      histogram.record(4.2e9)
      const seen = histogram.quantile(0.5)
      expect(seen).toBeGreaterThanOrEqual(value)
      expect(seen).toBeLessThanOrEqual(value * 1.016)
    }
  })

  it('finds one slow answer among a thousand', () => {
    const histogram = new LatencyHistogram()
    for (let count = 0; count < 999; count++) histogram.record(100)
    histogram.record(5_000_000)
    expect([0.5, 0.99, 0.999, 1].map((share) => histogram.quantile(share))).toEqual([
      100, 100, 100, 5_000_000,
    ])
  })

  it('answers 0 when nothing was recorded', () => {
    expect(new LatencyHistogram().quantile(0.99)).toBe(0)
  })
})
