import { PerformanceObserver } from 'node:perf_hooks'
import v8 from 'node:v8'

/** No pool, and no buffer into which Node reads from a socket, is as long: a longer one has its memory to itself. */
const LARGE_BYTES = 256 * 1024
/** For less, the garbage collector is quicker. */
const WORTH_BYTES = 32 * 1024

/** From here on a buffer is worth pages of its own. */
const OWN_PAGES_BYTES = 8 * 1024 ** 2
/** The allocator of glibc keeps what it gave up to 32 MiB, once as much has been freed (mallopt(3), M_MMAP_THRESHOLD). */
const KEPT_BYTES_MAX = 33 * 1024 ** 2

/**
 * Memory for a large body, with any content. It goes back to the system when it is freed, and takes no more than what is
 * written to it until then.
 */
export function allocateLarge(bytes: number): Buffer {
  return Buffer.allocUnsafeSlow(largeBytes(bytes)).subarray(0, bytes)
}

/** How much to ask for where `bytes` are needed, so that the memory goes back to the system when it is freed. */
export function largeBytes(bytes: number): number {
  return bytes < OWN_PAGES_BYTES ? bytes : Math.max(bytes, KEPT_BYTES_MAX)
}

/**
 * Gives the memory under a large buffer back at once, where the garbage collector would let it lie until 64 MB and more of such
 * had come together. The buffer has no bytes afterwards, nor has any other over the same memory: whoever calls must be the last
 * who uses it. Leaves a short buffer alone, and one of up to 256 KiB that is not the whole of its memory.
 */
export function freeMemory(bytes: Uint8Array): void {
  const { buffer, byteLength } = bytes
  const isAlone = byteLength > LARGE_BYTES || (byteLength > WORTH_BYTES && byteLength === buffer.byteLength)
  if (isAlone && buffer instanceof ArrayBuffer) buffer.transfer(0)
}

/** What it was in Node.js for years: two halves of 16 MiB. */
const YOUNG_BYTES_MAX = 32 * 1024 ** 2

/**
 * Keeps the space of young objects from growing beyond 32 MiB, or beyond the next size when it grows as this is looked at.
 * Where there is memory, V8 lets it become 128 MiB and does not give it back as long as there is something to do.
 */
export function limitYoungSpace(): void {
  const observer = new PerformanceObserver(() => {
    const young = v8.getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space')
    if (young === undefined || young.space_size < YOUNG_BYTES_MAX) return
    // The one setting of its size that V8 reads again, each time that it would make it larger.
    v8.setFlagsFromString('--semi-space-growth-factor=1')
    observer.disconnect()
  })
  observer.observe({ entryTypes: ['gc'] })
}

/** In percent of what was left of the last time. */
const OLD_GROWTH_PERCENT = 200

/**
 * Has V8 look through the old objects when three times as much has come together as the last look left, buffers included. By
 * itself it chooses the least factor, 1.1 to 1.5, where looks go quickly, and buffers count as growth: ten looks a second while
 * bodies of 48 kB pass through, for a fifth of the CPU time.
 */
export function growOldSpace(): void {
  v8.setFlagsFromString(`--heap-growing-percent=${OLD_GROWTH_PERCENT}`)
}
