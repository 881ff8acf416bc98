import { randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, mkdir, open, rename, stat, unlink } from 'node:fs/promises'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { Failure } from '../../foundation/failure.ts'
import type { Sql } from '../../postgres/pool.ts'
import { countDeadLetters, type DeadLetterFilter, readDeadLetters } from '../../queue/dead-letters.ts'
import type { Progress } from '../progress.ts'
import { readableCount } from '../table.ts'
import { countedLetters, fileName, letterJson, noneFits } from './letter.ts'
import type { ChangeOptions } from './program.ts'

const INDEX = 'dead-letters.jsonl'
const PIECE = { rowsMax: 100, bytesMax: 8 * 1024 * 1024 }

/** What another folder or another user would mend. */
const misplaced = new Set(['EACCES', 'EEXIST', 'EISDIR', 'ENOTDIR', 'EPERM', 'EROFS'])

/**
 * Writes a file for each letter that fits, then its line of the index: what the index names is on disk, whole. Letters
 * that it names already are left alone, so that a run after one that was cut short goes on where that ended.
 *
 * @throws Failure `configuration` for a place where nothing can be written, `outage` for one that is full or broken.
 */
export async function exportCommand(
  { sql, progress }: { sql: Sql; progress: Progress },
  filter: DeadLetterFilter,
  { to, dryRun, json }: ChangeOptions & { to: string },
): Promise<{ found: number; text: string }> {
  const found = await countDeadLetters(sql, filter)
  const folder = path.resolve(to)
  if (dryRun) {
    const { rows, items, bytes } = found
    if (json)
      return { found: rows, text: `${JSON.stringify({ dryRun, found: rows, items, bytes, folder })}\n` }
    const text = rows === 0 ? noneFits : `This would write ${countedLetters(found)} into ${folder}.\n`
    return { found: rows, text }
  }
  const done = { rows: 0, bytes: 0 }
  let there = 0
  try {
    await inFolder(folder, async (index, known) => {
      for (let after = 0n; after < found.lastId; ) {
        const letters = await readDeadLetters(sql, filter, { ...PIECE, after, last: found.lastId })
        const last = letters.at(-1)
        if (last === undefined) break
        after = last.id
        const lines: string[] = []
        for (const { payload, ...letter } of letters) {
          const file = fileName(letter)
          const isKnown = known.has(deathOf(letterJson(letter)))
          if (isKnown && (await sizeOf(path.join(folder, file))) === payload.length) {
            there++
            continue
          }
          await writeWhole(folder, file, payload)
          if (!isKnown) lines.push(`${JSON.stringify({ ...letterJson(letter), file })}\n`)
          done.rows++
          done.bytes += payload.length
          progress.say(`${readableCount(done.rows + there)} of ${readableCount(found.rows)} exported`)
        }
        await syncFolder(folder)
        await index.appendFile(lines.join(''))
        await index.sync()
      }
    })
  } finally {
    progress.end()
  }
  const { rows: written, bytes } = done
  const report = { dryRun: false, found: found.rows, written, bytes, there, folder }
  if (found.rows === 0 && !json) return { found: 0, text: noneFits }
  const others = there === 0 ? '' : ` ${readableCount(there)} were there already.`
  const text = `${countedLetters(done)} written into ${folder}.${others}\n`
  return { found: found.rows, text: json ? `${JSON.stringify(report)}\n` : text }
}

/** Opens the index in the folder, with the deaths that it names. */
async function inFolder(
  folder: string,
  work: (index: FileHandle, known: ReadonlySet<string>) => Promise<void>,
): Promise<void> {
  let index: FileHandle | undefined
  try {
    await mkdir(folder, { recursive: true })
    index = await open(path.join(folder, INDEX), 'a+', 0o600)
    const known = await readIndex(index, path.join(folder, INDEX))
    await work(index, known)
  } catch (thrown) {
    if (!isErrno(thrown)) throw thrown
    throw new Failure(
      misplaced.has(thrown.code) ? 'configuration' : 'outage',
      `The dead letters cannot be written into ${folder}: ${thrown.message}`,
      {
        code: thrown.code,
        cause: thrown,
      },
    )
  } finally {
    await index?.close()
  }
}

/** A run that was killed may have left half a line: it is ended, so that it spoils no other. */
async function readIndex(index: FileHandle, file: string): Promise<Set<string>> {
  const known = new Set<string>()
  const { size } = await index.stat()
  if (size === 0) return known
  const { buffer } = await index.read(Buffer.alloc(1), 0, 1, size - 1)
  if (buffer.toString() !== '\n') await index.appendFile('\n')
  for await (const line of createInterface({
    input: createReadStream(file),
    crlfDelay: Number.POSITIVE_INFINITY,
  })) {
    const death = readDeath(line)
    if (death !== undefined) known.add(death)
  }
  return known
}

function readDeath(line: string): string | undefined {
  try {
    return deathOf(JSON.parse(line) as Record<string, unknown>)
  } catch (thrown) {
    if (thrown instanceof SyntaxError) return undefined
    throw thrown
  }
}

/** A letter that was replayed and came back has the same id and the same bytes, and another story. */
function deathOf({ id, diedAt }: Record<string, unknown>): string {
  return `${id} ${diedAt instanceof Date ? diedAt.toISOString() : diedAt}`
}

async function writeWhole(folder: string, name: string, bytes: Buffer): Promise<void> {
  const temporary = path.join(folder, `.${name}.${randomUUID()}`)
  try {
    const file = await open(temporary, 'wx', 0o600)
    try {
      await file.writeFile(bytes)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path.join(folder, name))
  } catch (thrown) {
    // The error that matters is the first one.
    await unlink(temporary).catch(() => undefined)
    throw thrown
  }
}

async function sizeOf(file: string): Promise<number | undefined> {
  try {
    return (await stat(file)).size
  } catch (thrown) {
    if (isErrno(thrown) && thrown.code === 'ENOENT') return undefined
    throw thrown
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

function isErrno(thrown: unknown): thrown is NodeJS.ErrnoException & { code: string } {
  return thrown instanceof Error && 'code' in thrown && 'syscall' in thrown
}
