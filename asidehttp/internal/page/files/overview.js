// The view of the counters: what a period has brought, label by label.
import { h, soft } from './dom.js'
import { bytes, clock, count, millis, name, percent, perSecond, span } from './format.js'
import { answers, state } from './state.js'
import { blank, col, num, period, pill, section, table, wide } from './table.js'

// add adds the figures of one process. Each process has subtracted its own counters: here they are only added.
function add(to, figures, seconds) {
	for (const name of ['calls', 'hits', 'stale', 'negative', 'loads', 'errors', 'overloads']) to[name] = (to[name] ?? 0) + figures[name]
	for (const name of ['loadP99', 'callP99']) to[name] = Math.max(to[name] ?? 0, figures[name])
	to.causes ??= {}
	for (const why in figures.causes) to.causes[why] = (to.causes[why] ?? 0) + figures.causes[why]
	for (const name of ['calls', 'loads']) to[`${name}Rate`] = (to[`${name}Rate`] ?? 0) + (seconds > 0 ? figures[name] / seconds : NaN)
	return to
}

function merged(all) {
	const rows = new Map()
	const total = {}
	for (const answer of all) {
		add(total, answer.total, answer.seconds)
		for (const row of answer.labels) rows.set(row.label, add(rows.get(row.label) ?? { label: row.label }, row, answer.seconds))
	}
	for (const row of rows.values()) row.course = course(all, (answer) => answer.labels.filter(({ label }) => label === row.label))
	return { total, rows: [...rows.values()] }
}

// course adds the courses of processes by time: their steps may differ.
function course(all, rowsOf) {
	const parts = all.filter((answer) => answer.courseStep > 0)
	const step = Math.max(...parts.map((answer) => answer.courseStep))
	const from = Math.min(...parts.map((answer) => answer.courseFrom))
	const sums = { calls: [], hits: [], step, from }
	for (const answer of parts) {
		for (const { course: own } of rowsOf(answer)) {
			own.calls?.forEach((calls, i) => {
				const at = Math.floor((answer.courseFrom - from + i * answer.courseStep) / step)
				sums.calls[at] = (sums.calls[at] ?? 0) + calls
				sums.hits[at] = (sums.hits[at] ?? 0) + own.hits[i]
			})
		}
	}
	return sums
}

// A course has up to 60 parts, begins at the right side, and is drawn larger while it is short.
const width = ({ calls }) => Math.max(18, calls.length)

// spark draws the hit rate from 0 to 100%. It has gaps where there were no calls.
function spark(sums) {
	const { calls, hits } = sums
	const height = 20
	let [line, area, open] = ['', '', false]
	const rates = []
	for (let i = 0; i < calls.length; i++) {
		const x = width(sums) - calls.length + i
		if (!(calls[i] > 0)) {
			open = false
			continue
		}
		const rate = hits[i] / calls[i]
		const y = (1 + (height - 2) * (1 - rate)).toFixed(1)
		rates.push(rate)
		line += `${open ? 'L' : 'M'}${x} ${y}H${x + 1}`
		area += `M${x} ${y}h1V${height}h-1z`
		open = true
	}
	const as = (rate) => percent(Math.round(rate * 1000), 1000)
	const label = rates.length === 0 ? 'Hit rate of the last hour: no calls'
		: `Hit rate of the last hour: ${as(rates.at(-1))} now, from ${as(Math.min(...rates))} to ${as(Math.max(...rates))}`
	return h('svg.spark', { role: 'img', 'aria-label': label, viewBox: `0 0 ${width(sums)} ${height}`, preserveAspectRatio: 'none' },
		h('path.area', { d: area }), h('path.line', { d: line }))
}

// chart draws the calls of the last hour, hits below misses.
function chart(sums) {
	const height = 56
	const peak = Math.max(0, ...sums.calls.filter((n) => n > 0))
	let [misses, hits] = ['', '']
	sums.calls.forEach((calls, i) => {
		if (!(calls > 0)) return
		const x = width(sums) - sums.calls.length + i + 0.1
		const top = height - Math.max(0.6, (height * calls) / peak)
		const mid = height - (height * sums.hits[i]) / peak
		misses += `M${x.toFixed(1)} ${top.toFixed(1)}h.8V${mid.toFixed(1)}h-.8z`
		hits += `M${x.toFixed(1)} ${mid.toFixed(1)}h.8V${height}h-.8z`
	})
	const rate = perSecond(peak, sums.step / 1000)
	return h('figure.chart',
		h('figcaption', h('span.key.hits', 'hits'), h('span.key.misses', 'misses'), h('span.end.number', `at most ${rate}`)),
		h('svg', { role: 'img', 'aria-label': `Calls of the last hour: at most ${rate}`, viewBox: `0 0 ${width(sums)} ${height}`, preserveAspectRatio: 'none' },
			h('path.misses', { d: misses }), h('path.hits', { d: hits })),
		h('div.axis', h('span', span((width(sums) * sums.step) / 1000), ' ago'), h('span', 'now')))
}

const figure = (title, value, under, kind = '') => h('div', { class: `figure ${kind}`, key: title }, h('dt', title), h('dd', h('strong', value), soft(under)))

const meter = (part, of) => h('svg.meter', { viewBox: '0 0 100 4', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
	h('rect', { width: '100', height: '4' }), h('rect.full', { width: String(of > 0 ? Math.min(100, (100 * part) / of) : 0), height: '4' }))

function figures(all, total) {
	const sum = (pick) => all.reduce((n, answer) => n + pick(answer), 0)
	const [used, limit] = [sum((a) => a.inMemory.bytes), sum((a) => a.inMemory.maxBytes)]
	const waiting = sum((a) => a.journal.unconfirmed)
	const oldest = Math.max(...all.map((a) => a.journal.oldestSeconds))
	return h('dl.figures',
		figure('Hit rate', percent(total.hits, total.calls), `${count(total.hits)} of ${count(total.calls)}`),
		figure('Calls', rate(total.callsRate), `${count(total.stale)} stale, ${count(total.negative)} not found`),
		figure('Loads', rate(total.loadsRate), `p99 ${millis(total.loadP99)}`),
		figure('Errors', count(total.errors), `${count(total.overloads)} loads refused`, total.errors + total.overloads > 0 ? 'bad' : ''),
		figure('Loads now', count(sum((a) => a.loading.running)), `${count(sum((a) => a.loading.queued))} wait, ${count(sum((a) => a.loading.limit))} may run`, sum((a) => a.loading.queued) > 0 ? 'warn' : ''),
		figure('Memory', bytes(used), [meter(used, limit), `of ${bytes(limit)}, ${count(sum((a) => a.inMemory.entries))} cached`]),
		figure('Unconfirmed', count(waiting), waiting > 0 ? `invalidations, for ${span(oldest)}` : 'invalidations', waiting > 0 ? 'warn' : ''))
}

function causes(row) {
	const list = Object.entries(row.causes).sort((a, b) => b[1] - a[1])
	if (list.length === 0) return soft('none')
	return h('span.cut', list.map(([why, n], i) => [i > 0 ? ', ' : '', `${why} ${count(n)}`]))
}

const rate = (n) => (Number.isFinite(n) ? perSecond(n, 1) : '–')

const columns = [
	col('Label', (row) => row.label, (row) => (row.label === '' ? soft('other labels') : name(row.label))),
	{ title: 'Last hour', cell: (row) => spark(row.course) },
	{ ...num('Hit rate', (row) => (row.calls > 0 ? row.hits / row.calls : -1)), cell: (row) => percent(row.hits, row.calls) },
	num('Calls', (row) => row.calls),
	num('Calls/s', (row) => row.callsRate || 0, rate),
	num('Loads', (row) => row.loads),
	num('Load p99', (row) => row.loadP99, millis),
	num('Call p99', (row) => row.callP99, millis),
	num('Errors', (row) => row.errors, (n) => h('span', { class: n > 0 ? 'bad' : null }, count(n))),
	wide('Causes of misses', (row) => row.calls - row.hits, causes),
]

export function overview() {
	const all = answers('overview')
	if (all.length === 0) return []
	const { total, rows } = merged(all)
	const known = state.session.categories
	const whole = course(all, (answer) => answer.labels)
	const changes = all.flatMap((answer) => answer.states.map((change) => ({ ...change, process: answer.process }))).sort((a, b) => b.at.localeCompare(a.at)).slice(0, 8)
	return [
		figures(all, total),
		rows.length === 0
			? blank('Nothing has been asked of this cache yet', 'A row appears with the first call of a policy. ',
				known.length > 0 ? ['The categories of its policies are ', known.map((name, i) => [i > 0 ? ', ' : '', h('code', name)]), '.'] : 'It knows no policy yet.')
			: [
				whole.calls.length > 0 ? section('Calls', 'the last hour', chart(whole)) : null,
				section('Labels', period(all),
					table('Labels', columns, rows, { keyOf: (row) => row.label, sorted: 'Calls', down: true })),
			],
		changes.length > 0 ? section('Changes of state', null, table('Changes of state', [
			col('Time', (c) => c.at, (c) => clock(c.at)),
			col('State', (c) => c.state, (c) => pill(c.state === 'degraded' ? 'warn' : 'ok', c.state)),
			wide('Reason', (c) => c.reason ?? '', (c) => name(c.reason ?? '')),
		], changes, { keyOf: (c) => c.at + c.process })) : null,
	]
}
