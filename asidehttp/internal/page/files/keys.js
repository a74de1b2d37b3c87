// The view of what is cached. It scans nothing before it is asked.
import { button, free, h, soft } from './dom.js'
import { bytes, count, cut, millis, plain, span, written } from './format.js'
import { asking, busy, confirm, dialog, result } from './invalidate.js'
import { ask, page, shortName, state } from './state.js'
import { blank, col, num, pill, section, table, wide } from './table.js'

const list = (pattern) => asking(async () => {
	state.listing = null
	page.redraw()
	state.listing = await ask(`keys.json?pattern=${encodeURIComponent(pattern)}`, null, 20)
})

const columns = [
	wide('Key', (row) => row.key, (row) => button(written(row.key), () => inspect(row.key), { class: 'link cut mono' })),
	col('Tier', (row) => row.tier, (row) => [row.tier, row.negative ? soft(' not found') : '']),
	{ ...num('TTL', (row) => row.ttl), cell: (row) => (row.stale ? h('span.warn', `over, kept ${span(row.keptFor)}`) : span(row.ttl)) },
	num('Age', (row) => row.age, span),
	num('Size', (row) => row.size, bytes),
	wide('Tags', (row) => row.tags.join(', '), (row) => h('span.cut.mono', row.tags.map((tag, i) => [i > 0 ? ', ' : '', written(tag)]), row.allTags > row.tags.length ? ` and ${row.allTags - row.tags.length} more` : '')),
]

export function keys() {
	const submit = (event) => {
		event.preventDefault()
		list(event.target.elements.pattern.value.trim())
	}
	const choose = (event, name) => {
		const { form } = event.target
		form.elements.pattern.value = `${name}:*`
		form.requestSubmit()
	}
	return [
		section('Keys', 'what is cached, by a pattern', h('form.line', { onsubmit: submit },
			h('label.field', h('span', 'Pattern'),
				h('input', { name: 'pattern', required: true, placeholder: 'sessions:ABC:*', ...free })),
			h('button.primary', { type: 'submit', disabled: busy }, busy && !state.listing ? 'Listing…' : 'List'),
			h('div.chips', state.session.categories.map((name) => button(`${name}:*`, (event) => choose(event, name), { key: name, class: 'chip mono' })))),
		result()),
		state.listing ? found() : busy ? null : blank('Nothing is scanned until you ask', 'A pattern begins with a category and a colon. ', h('code', '*'), ' stands for any text, also across colons.'),
	]
}

function found() {
	const { rows, more, error, pattern, took_ms, process } = state.listing
	const what = `${more ? 'the first ' : ''}${count(rows.length)} found in ${millis(took_ms)}${more ? ', and there are more' : ''}${state.processes.size > 1 ? ` by ${shortName(process)}` : ''}`
	return [
		error ? h('p.alert', { role: 'alert', key: 'error' }, `The listing is not complete: ${error}.`) : null,
		rows.length === 0 && !error ? blank('No cached key matches', h('code', plain(pattern)), ' has no values now. They may have expired, or have been invalidated.')
			: section(plain(pattern), what, table('Keys', columns, rows, { keyOf: (row) => row.key, sorted: null, empty: 'None was found before that.' })),
	]
}

// inspect shows one value beside the list.
const inspect = (key) => asking(async () => {
	const entry = await ask(`entry.json?key=${encodeURIComponent(key)}`, null, 20)
	const order = () => { close(); asking(() => confirm({ keys: [entry.key] })); }
	const close = dialog('A cached value', 'side', (end) => panel(entry, end, order))
})

const fact = (name, value) => [h('dt', name), h('dd', value)]

const verdict = (text) => (text === 'served' ? pill('ok', text) : pill('warn', text))

function panel(entry, close, order) {
	const { inMemory, generations, value } = entry
	return [
		h('div.head', h('h2.mono', written(entry.key))),
		h('div.stack',
			entry.error ? h('p.alert', { role: 'alert' }, entry.error) : null,
			h('dl.facts',
				entry.verdict ? fact('A call', verdict(entry.verdict)) : null,
				entry.problem ? fact('Problem', plain(entry.problem)) : null,
				entry.tier ? [
					fact('Tier', entry.tier), fact('TTL', entry.stale ? `over, kept for ${span(entry.keptFor)}` : span(entry.ttl)), fact('Age', span(entry.age)),
					entry.loadTook > 0 ? fact('Load took', span(entry.loadTook)) : null,
					fact('Size', `${bytes(entry.size)}${entry.decoded > 0 ? `, ${bytes(entry.decoded)} decoded` : ''}${entry.compressed ? ', compressed' : ''}${entry.chunks > 0 ? `, in ${entry.chunks} parts` : ''}`),
					entry.policy ? fact('Policy', plain(entry.policy)) : null, entry.codec ? fact('Codec', plain(entry.codec)) : null,
					entry.etag ? fact('ETag', written(entry.etag)) : null, entry.nonce ? fact('Fill', h('span.mono', entry.nonce)) : null,
					entry.negative ? fact('Value', 'a cached “not found”') : null,
				] : null,
				inMemory ? fact('In memory', [verdict(inMemory.verdict), ` ${bytes(inMemory.size)} `, h('span.mono', plain(inMemory.type))]) : null),
		),
		generations.length > 0 ? table('Tags', [
			wide('Tag', (g) => g.name || 'everything'), col('Kind', (g) => g.kind), num('Generation', (g) => g.then, String),
			{ ...num('Now', (g) => g.now), cell: (g) => (g.current ? 'the same' : [pill('warn', 'invalidated'), ` ${g.now}`]) },
		], generations, { keyOf: (g) => g.kind + g.name }) : entry.tags.length > 0 ? h('ul.names', entry.tags.map((tag, i) => h('li', { key: i }, cut(tag)))) : null,
		h('div.stack',
			value ? [h('h2', 'Value'), h('pre', { tabindex: '0', role: 'region', 'aria-label': 'Value' }, visible(value.text)), value.cut ? h('p.soft', 'There is more of it.') : null]
				: state.session.values || !entry.tier ? null : h('p.soft', 'Values are not shown to this key.'),
			h('div.actions', button('Close', close, { autofocus: true }),
				state.session.invalidate ? button('Invalidate…', order) : null)),
	]
}

// visible is a value as text: its lines and tabs are kept, and what else cannot be seen is written out.
const visible = (text) => text.split('\n').map((line) => line.split('\t').map(plain).join('\t')).join('\n')
