/** A step of a plan, as EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) writes it. */
export interface PlanNode {
  'Node Type': string
  'Relation Name'?: string
  'Index Name'?: string
  'CTE Name'?: string
  'Subplan Name'?: string
  'Actual Rows': number
  'Actual Loops': number
  'Rows Removed by Filter'?: number
  'Rows Removed by Index Recheck'?: number
  'Shared Hit Blocks': number
  'Shared Read Blocks': number
  Plans?: PlanNode[]
}

const watched = /^ingestion_/

export function allNodes(node: PlanNode): PlanNode[] {
  return [node, ...(node.Plans ?? []).flatMap(allNodes)]
}

/** Tables of the queue that are read from their first page on. */
export function tablesScanned(plan: PlanNode): string[] {
  return allNodes(plan)
    .filter((node) => node['Node Type'] === 'Seq Scan')
    .map((node) => node['Relation Name'] ?? '')
    .filter((name) => watched.test(name))
}

/** Indexes of the queue's tables that stand in the plan, each once, by name. */
export function indexesOf(plan: PlanNode): string[] {
  const names = allNodes(plan).flatMap((node) => node['Index Name'] ?? [])
  return [...new Set(names)].filter((name) => watched.test(name)).sort()
}

/** The most rows of a table that one step of the plan read, those included that it read for nothing. */
export function rowsRead(plan: PlanNode, table: string): number {
  const counts = allNodes(plan)
    .filter((node) => node['Relation Name'] === table && node['Node Type'] !== 'ModifyTable')
    .map((node) => {
      const removed = (node['Rows Removed by Filter'] ?? 0) + (node['Rows Removed by Index Recheck'] ?? 0)
      return (node['Actual Rows'] + removed) * node['Actual Loops']
    })
  return Math.max(0, ...counts)
}

/** Pages that were looked at or changed. */
export function buffersOf(plan: PlanNode): number {
  const nodes = allNodes(plan)
  const read = new Set(nodes.flatMap((node) => node['CTE Name'] ?? []))
  const of = (node: PlanNode) => node['Shared Hit Blocks'] + node['Shared Read Blocks']
  // A step counts what is below it, but a CTE that nobody reads runs by itself at the end.
  const unread = nodes.filter((node) => {
    const [, name] = /^CTE (\w+)$/.exec(node['Subplan Name'] ?? '') ?? []
    return name !== undefined && !read.has(name)
  })
  return of(plan) + unread.reduce((total, node) => total + of(node), 0)
}
