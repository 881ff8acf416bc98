import { text, url } from '../foundation/setting.ts'

/** Which PostgreSQL holds the queue and the catalog. */
export const postgresSettings = {
  DATABASE_URL: url({
    schemes: ['postgres', 'postgresql'],
    about: 'The PostgreSQL database that holds the queue and the catalog, 15 or newer, as a connection URI.',
    whenUnset: 'an embedded PostgreSQL below DATA_DIR',
  }),
  DATA_DIR: text({
    default: './data',
    about:
      'The folder of the embedded PostgreSQL and of the stored objects, where no other server is configured.',
  }),
}
