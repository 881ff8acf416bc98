import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    globalSetup: ['test/support/postgres-setup.ts'],
    include: ['test/**/*.test.ts', 'src/**/*.test.ts'],
    // Two cores: more workers only slow the real servers that the tests talk to.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 120_000,
  },
})
