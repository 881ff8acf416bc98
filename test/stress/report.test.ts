import { expect, it } from 'vitest'
import { Report, renderTable } from '../../stress/report.ts'

it('a cell longer than its column goes on below itself', () => {
  const table = renderTable(
    [
      ['what', 'seen'],
      ['one two three', 'abcdefghij'],
    ],
    [8, 6],
  )
  expect(table.split('\n')).toEqual([
    'what      seen',
    '--------  ------',
    'one two   abcdef',
    'three     ghij',
  ])
})

it('one untrue line makes the whole report untrue', () => {
  const report = new Report(() => undefined)
  report.check('first', { expected: '1', seen: '1', ok: true })
  expect(report.allTrue).toBe(true)
  report.check('second', { expected: '1', seen: '2', ok: false })
  report.check('third', { expected: '1', seen: '1', ok: true })
  expect(report.allTrue).toBe(false)
})
