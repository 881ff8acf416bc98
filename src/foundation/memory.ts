/** Below this a buffer may be part of a pool, and is not worth the call. */
const WORTH_BYTES = 32 * 1024

/**
 * Gives the memory under a large buffer back now, where the garbage collector would let it lie until 64 MB and more of such
 * had come together. The buffer has no bytes afterwards, nor has any other in the same memory: whoever calls must be the last
 * who uses it. Does nothing for a short buffer.
 */
export function freeMemory(bytes: Uint8Array): void {
  const { buffer, byteLength } = bytes
  if (byteLength < WORTH_BYTES || !(buffer instanceof ArrayBuffer)) return
  buffer.transfer(0)
}
