import { defineConfig } from 'vitest/config'

/** Tests whose name says that they need a PostgreSQL or a MinIO server, and those that start whole processes. */
const needsServers = [
  'test/**/*.pg.test.ts',
  'test/**/*.s3.test.ts',
  'test/system/**/*.test.ts',
  'test/clients/**/*.test.ts',
]

export default defineConfig({
  test: {
    // Two cores: more workers only slow the real servers that the tests talk to.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 120_000,
    // Other tests use both cores meanwhile.
    expect: { poll: { timeout: 10_000 } },
    projects: [
      {
        extends: true,
        test: { name: 'plain', include: ['test/**/*.test.ts'], exclude: needsServers },
      },
      {
        extends: true,
        test: {
          name: 'servers',
          include: needsServers,
          globalSetup: ['test/support/postgres-setup.ts'],
        },
      },
    ],
  },
})
