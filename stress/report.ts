/** One line of the printed table. */
export interface Check {
  readonly what: string
  readonly expected: string
  readonly seen: string
  readonly ok: boolean
  readonly seconds: number
}

/** Collects the lines of a run and says each as soon as it is known. */
export class Report {
  readonly checks: Check[] = []
  readonly #say: (line: string) => void
  #sinceMs = performance.now()

  constructor(say: (line: string) => void) {
    this.#say = say
  }

  get allTrue(): boolean {
    return this.checks.every(({ ok }) => ok)
  }

  /** Says what goes on, for everything that takes longer than a moment. */
  progress(line: string): void {
    this.#say(`  … ${line}`)
  }

  /** The seconds of a line are those since the line before. */
  check(what: string, line: { expected: string; seen: string; ok: boolean }): void {
    const nowMs = performance.now()
    const seconds = (nowMs - this.#sinceMs) / 1000
    this.#sinceMs = nowMs
    this.checks.push({ what, ...line, seconds })
    this.#say(`${line.ok ? 'ok' : 'FAILED'}  ${what}`)
  }

  /** The table, with a column as wide as its longest cell up to a limit; longer cells go on below themselves. */
  table(): string {
    const header = ['', 'what', 'expected', 'seen', 'seconds']
    const rows = this.checks.map(({ what, expected, seen, ok, seconds }) => [
      ok ? 'ok' : 'FAILED',
      what,
      expected,
      seen,
      seconds.toFixed(1),
    ])
    return renderTable([header, ...rows], [6, 44, 52, 60, 7])
  }
}

/** Rows of text as columns; a cell longer than its column's width is broken at blanks. */
export function renderTable(rows: readonly (readonly string[])[], widthsMax: readonly number[]): string {
  const widths = widthsMax.map((max, column) =>
    Math.min(max, Math.max(...rows.map((row) => row[column]?.length ?? 0))),
  )
  const lines: string[] = []
  for (const [place, row] of rows.entries()) {
    const cells = row.map((cell, column) => wrap(cell, widths[column] ?? 0))
    const height = Math.max(...cells.map((cell) => cell.length))
    for (let line = 0; line < height; line++) {
      lines.push(
        cells
          .map((cell, column) => (cell[line] ?? '').padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd(),
      )
    }
    if (place === 0) lines.push(widths.map((width) => '-'.repeat(width)).join('  '))
  }
  return lines.join('\n')
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/\s+/)) {
    let rest = word
    if (line !== '' && line.length + 1 + rest.length > width) {
      lines.push(line)
      line = ''
    }
    while (rest.length > width) {
      lines.push(rest.slice(0, width))
      rest = rest.slice(width)
    }
    line = line === '' ? rest : `${line} ${rest}`
  }
  return [...lines, line]
}
