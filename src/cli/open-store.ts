import { join } from 'node:path'
import type { Config } from '../config.ts'
import type { Clock } from '../foundation/clock.ts'
import { openFolderStore } from '../sink/folder-store.ts'
import { openMinioStore } from '../sink/minio-store.ts'
import type { ObjectStore } from '../sink/object-store.ts'
import { minioSettings } from '../sink/settings.ts'

/** The bucket that the settings name, or the folder below `DATA_DIR`. Nothing is asked of it yet. */
export function openStore(config: Config, clock: Clock): ObjectStore {
  // A put may take half a lease, so that whoever takes a batch over meets no put of the former holder.
  const putTimeoutMs = (config.LEASE_SECONDS * 1000) / 2
  const minio = minioSettings(config)
  if (minio !== undefined) return openMinioStore({ ...minio, putTimeoutMs, clock })
  return openFolderStore({ folder: join(config.DATA_DIR, 'objects'), timeoutMs: putTimeoutMs, clock })
}
