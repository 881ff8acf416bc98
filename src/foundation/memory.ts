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
