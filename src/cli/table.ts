/** Rows as a table of aligned columns: numbers to the right, everything else to the left. */
export function table(rows: readonly Readonly<Record<string, string | number>>[]): string {
  const [first] = rows
  if (first === undefined) return ''
  const names = Object.keys(first)
  const cells = [names, ...rows.map((row) => names.map((name) => String(row[name] ?? '')))]
  const widths = names.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? '').length)))
  const isNumber = names.map((name) => rows.every((row) => typeof row[name] === 'number'))
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) =>
        isNumber[column] ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd()
  return `${cells.map(line).join('\n')}\n`
}

/** Bytes as a person reads them: 1.5 MiB. */
export function readableBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let power = 0
  while (bytes >= 1024 && power < units.length - 1) {
    bytes /= 1024
    power++
  }
  return `${power === 0 ? bytes : bytes.toFixed(1)} ${units[power]}`
}

/** A duration as a person reads it, in its largest unit and the next: 3d 4h, 2m 5s, 0.4s. */
export function readableSeconds(seconds: number): string {
  if (seconds < 60) return `${seconds.toFixed(1)}s`
  const whole = Math.round(seconds)
  const [days, hours, minutes] = [
    Math.floor(whole / 86_400),
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60,
  ]
  if (days > 0) return `${days}d ${hours}h`
  return hours > 0 ? `${hours}h ${minutes}m` : `${minutes}m ${whole % 60}s`
}

/** A count as a person reads it: 1,234,567. */
export function readableCount(count: number): string {
  return count.toLocaleString('en-US')
}
