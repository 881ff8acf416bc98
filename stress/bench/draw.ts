import { type EChartsCoreOption, init } from 'echarts'

export type Plot = LinePlot | BarPlot

export interface Axis {
  /** With its unit. */
  name: string
  /** On a logarithmic axis 0 stands at 1. */
  scale: 'linear' | 'log'
}

export interface PlotLine {
  name: string
  points: readonly (readonly [x: number, y: number])[]
}

export interface LinePlot {
  kind: 'lines'
  title: string
  x: Axis
  y: Axis
  lines: readonly PlotLine[]
  /** Whether each point says its value. */
  hasLabels: boolean
}

/** Stacked bars that lie: one for each category, with its sum at its end. */
export interface BarPlot {
  kind: 'bars'
  title: string
  valueName: string
  categories: readonly string[]
  /** Each with a value for each category. */
  parts: readonly { name: string; values: readonly number[] }[]
}

const width = 860
const text = '#1a1a1a'
/** To be told apart by everybody (Okabe and Ito, 2008). */
const colours = [
  '#0072b2',
  '#d55e00',
  '#009e73',
  '#cc79a7',
  '#e69f00',
  '#56b4e9',
  '#000000',
  '#7f7f7f',
  '#999933',
]

/** The plot as SVG: the same bytes for the same plot, on a white ground. */
export function draw(plot: Plot): string {
  const height = plot.kind === 'bars' ? 150 + 44 * plot.categories.length : 460
  const chart = init(null, null, { renderer: 'svg', ssr: true, width, height })
  try {
    chart.setOption({
      ...common(plot),
      ...(plot.kind === 'bars' ? barOptions(plot) : lineOptions(plot)),
    })
    return numberedAnew(chart.renderToSVGString())
  } finally {
    chart.dispose()
  }
}

function common({ title }: Plot): EChartsCoreOption {
  return {
    animation: false,
    backgroundColor: '#ffffff',
    color: colours,
    textStyle: { fontFamily: 'sans-serif', color: text },
    title: { text: title, left: 'center', top: 10, textStyle: { fontSize: 15, color: text } },
  }
}

function lineOptions({ x, y, lines, hasLabels }: LinePlot): EChartsCoreOption {
  const isLog = { x: x.scale === 'log', y: y.scale === 'log' }
  return {
    legend: { bottom: 8, textStyle: { color: text }, itemGap: 24 },
    grid: { left: 80, right: 40, top: 56, bottom: 92 },
    // A line without labels may end at the edge.
    xAxis: { ...axisOptions(x, 32), ...(hasLabels ? {} : { max: 'dataMax' }) },
    yAxis: axisOptions(y, 52),
    series: lines.map(({ name, points }) => ({
      name,
      type: 'line',
      silent: true,
      showSymbol: hasLabels,
      symbol: 'circle',
      symbolSize: 7,
      data: points.map(([across, up]) => [
        isLog.x ? Math.max(1, across) : across,
        isLog.y ? Math.max(0.01, up) : up,
      ]),
      label: {
        show: hasLabels,
        position: 'top',
        color: text,
        formatter: ({ value }: { value: [number, number] }) => short(value[1]),
      },
    })),
  }
}

function axisOptions({ name, scale }: Axis, nameGap: number): object {
  return {
    type: scale === 'log' ? 'log' : 'value',
    name,
    nameLocation: 'middle',
    nameGap,
    nameTextStyle: { color: text, fontSize: 13 },
    axisLine: { show: true, lineStyle: { color: text } },
    axisLabel: {
      color: text,
      formatter: (value: number) =>
        scale === 'log' && name.startsWith('rows') && value === 1 ? '0' : grouped(value),
    },
    splitLine: { lineStyle: { color: '#e4e4e4' } },
  }
}

function barOptions({ valueName, categories, parts }: BarPlot): EChartsCoreOption {
  const sums = categories.map((_, place) => parts.reduce((sum, { values }) => sum + (values[place] ?? 0), 0))
  return {
    legend: { bottom: 8, textStyle: { color: text }, data: parts.map(({ name }) => name) },
    grid: { left: 210, right: 80, top: 50, bottom: 90 },
    xAxis: axisOptions({ name: valueName, scale: 'linear' }, 32),
    yAxis: {
      type: 'category',
      inverse: true,
      data: categories,
      axisLabel: { color: text, interval: 0, lineHeight: 15 },
      axisLine: { lineStyle: { color: text } },
      axisTick: { show: false },
    },
    series: [
      ...parts.map(({ name, values }) => ({
        name,
        type: 'bar',
        silent: true,
        stack: 'all',
        barWidth: 24,
        data: values.map((value) => (value === 0 ? '-' : value)),
      })),
      {
        name: 'sum',
        type: 'bar',
        silent: true,
        stack: 'all',
        barWidth: 24,
        data: sums.map(() => 0),
        label: {
          show: true,
          position: 'right',
          color: text,
          formatter: ({ dataIndex }: { dataIndex: number }) => short(sums[dataIndex] ?? 0),
        },
      },
    ],
  }
}

/** The library numbers what it draws over all plots of a process: here each begins at 0. */
function numberedAnew(svg: string): string {
  const numbers = new Map<string, number>()
  return svg.replaceAll(/\bzr\d+-[a-z]+-?\d+\b/g, (name) => {
    if (!numbers.has(name)) numbers.set(name, numbers.size)
    return `plot-${numbers.get(name)}`
  })
}

function short(value: number): string {
  return value < 100 ? value.toFixed(1) : value.toFixed(0)
}

function grouped(value: number): string {
  return String(value).replaceAll(/\B(?=(\d{3})+$)/g, ' ')
}
