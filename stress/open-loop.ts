export async function runOpenLoop(_: unknown): Promise<unknown> {
  return undefined
}
