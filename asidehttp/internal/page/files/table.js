// Tables that can be sorted by any column, and the other parts that views share.
import { button, h } from './dom.js'
import { count, cut, span } from './format.js'
import { page, state } from './state.js'

// Columns of any content, of names that are cut and take what room there is, of numbers.
export const col = (title, value, cell = value) => ({ title, value, cell })
export const wide = (title, value, cell = (row) => cut(value(row))) => ({ title, value, cell, wide: true })
export const num = (title, value, form = count) => ({ title, value, cell: (row) => form(value(row)), number: true })

const sorts = new Map(); // name of a table -> { column, down }

// table describes a table. A column has a title, value(row) to sort by, and cell(row) to show.
export function table(name, columns, rows, { keyOf, sorted, down = false, empty }) {
	const sort = sorts.get(name) ?? { column: sorted, down }
	const by = columns.find((column) => column.title === sort.column)
	const list = by ? rows.toSorted((a, b) => compare(by.value(a), by.value(b)) * (sort.down ? -1 : 1)) : rows
	const turn = (column) => {
		sorts.set(name, { column: column.title, down: sort.column === column.title ? !sort.down : Boolean(column.number) })
		page.redraw()
	}
	const kind = (column) => (column.number ? 'number' : column.wide ? 'wide' : null)
	const head = columns.map((column) => {
		const own = sort.column === column.title
		return h('th', { scope: 'col', class: kind(column), 'aria-sort': own ? (sort.down ? 'descending' : 'ascending') : null },
			column.value
				? button([column.title, h('span.arrow', { 'aria-hidden': 'true' }, own ? (sort.down ? '↓' : '↑') : '')], () => turn(column), { class: 'sort' })
				: column.title)
	})
	const body = list.map((row) => h('tr', { key: `row ${keyOf(row)}` },
		columns.map((column, i) => h(i === 0 ? 'th' : 'td', { scope: i === 0 ? 'row' : null, class: kind(column) }, column.cell(row)))))
	return h('div.scroll', { role: 'region', tabindex: '0', 'aria-label': name, key: `table ${name}` },
		h('table',
			h('caption.unseen', name),
			h('thead', h('tr', head)),
			h('tbody', body.length > 0 ? body : h('tr', { key: 'none' }, h('td.none', { colspan: String(columns.length) }, empty)))))
}

const compare = (a, b) => (typeof a === 'number' ? a - b : String(a).localeCompare(String(b), 'en'))

export const section = (title, side, ...content) => h('section', { key: `section ${title}`, class: 'card' },
	h('div.head', h('h2', title), side ? h('p.soft', side) : null), content)

// period is the time that figures are of. Processes may have a different one each.
export const period = (all) => (state.within === 'start' ? 'since the start' : `the last ${span(Math.round(Math.max(...all.map((answer) => answer.seconds))))}`)

export const blank = (title, ...text) => h('div.blank', { key: `blank ${title}` }, layers(), h('h2', title), h('p', text))

// layers is the sign of the page.
export const layers = () => h('svg.layers', { viewBox: '0 0 24 24', 'aria-hidden': 'true' },
	h('rect', { x: '3', y: '4', width: '18', height: '7', rx: '1.5' }), h('rect', { x: '3', y: '13', width: '18', height: '7', rx: '1.5', class: 'lower' }))

// pill is a state, in words beside its colour.
export const pill = (kind, text) => h('span', { class: `pill ${kind}` }, text)
