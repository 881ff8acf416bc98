import { type ExitCode, exitCodes } from '../exit-codes.ts'
import { readableBytes, readableCount, table } from '../table.ts'
import type { Finding, Tallies, Verification } from './verify.ts'

export const verifyHelp = `
Reads every object that the catalog names and compares its size and its SHA-256; unpacks and decodes each request in it
and counts what is in them. Then lists the store and looks every object up in the catalog. --fast reads no object and
takes the store's word for sizes and checksums (a folder is read all the same). It may run beside serve, and changes
nothing.

  right       as the catalog says
  missing     the catalog names it and the store does not have it
  size, checksum, content
              other bytes than were stored, or not the requests and items that the catalog counts
  unreadable  the store does not give it
  in flight   its batch waits or is being written, or the sweeper will look after it
  unknown     named like ours, and this database does not know it: see sluice sweep --help
  not ours    another name than we give; left alone by everything

Exit codes beyond those below: 4 something is missing, damaged or unreadable; 5 nothing is, and something is unknown.

Examples:
  sluice verify
  sluice verify --fast --since 2026-01-31T00:00:00Z
  sluice verify --json | jq -r '.findings[] | select(.what == "missing").key'`

const SHOWN_MAX = 100

/** Prints what is wrong and what is unknown, and how many objects are what. */
export async function verifyCommand(
  verification: Verification,
  { json, print }: { json: boolean; print: (text: string) => Promise<unknown> },
): Promise<ExitCode> {
  await (json ? printJson(verification, print) : printTable(verification, print))
  const { right: _, unknown, 'in flight': __, 'not ours': ___, ...wrong } = verification.tallies
  if (Object.values(wrong).some(({ objects }) => objects > 0)) return exitCodes.wrong
  return unknown.objects > 0 ? exitCodes.unknown : exitCodes.ok
}

async function printJson(
  verification: Verification,
  print: (text: string) => Promise<unknown>,
): Promise<void> {
  let before = '{"findings":['
  for await (const finding of verification.findings()) {
    await print(before + JSON.stringify(finding))
    before = ',\n'
  }
  const start = before.startsWith('{') ? before : ''
  await print(`${start}],"objects":${JSON.stringify(verification.tallies)}}\n`)
}

async function printTable(
  verification: Verification,
  print: (text: string) => Promise<unknown>,
): Promise<void> {
  const shown: Finding[] = []
  let found = 0
  for await (const finding of verification.findings()) {
    found++
    if (shown.length < SHOWN_MAX) shown.push(finding)
  }
  await print(tallyTable(verification.tallies))
  if (found === 0) return
  await print(
    `\n${table(shown.map(({ what, bytes, key, detail }) => ({ what, size: readableBytes(bytes), key, detail })))}`,
  )
  if (found > shown.length) {
    await print(`… and ${readableCount(found - shown.length)} more; --json shows all.\n`)
  }
}

function tallyTable(tallies: Tallies): string {
  const rows = Object.entries(tallies).filter(([what, { objects }]) => objects > 0 || what === 'right')
  return table(rows.map(([what, { objects, bytes }]) => ({ what, objects, size: readableBytes(bytes) })))
}
