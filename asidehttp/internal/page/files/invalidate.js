// The view that invalidates: it counts first, and asks before it acts.
import { button, free, h, patch, reachCuts, soft } from './dom.js'
import { count, cut, millis } from './format.js'
import { Refused, ask, page, state } from './state.js'
import { section } from './table.js'

const kinds = {
	keys: { title: 'Keys', label: 'Keys, one a line', hint: 'such as models:openrouter:all', lines: true },
	pattern: { title: 'Pattern', label: 'Pattern', hint: 'a category, a colon, and what the keys have in common, such as sessions:ABC:*' },
	tags: { title: 'Tags', label: 'Tags, one a line', hint: 'every value with one of them', lines: true },
	category: { title: 'Category', label: 'Category' },
	all: { title: 'Everything', hint: 'every value of every category' },
}

let kind = 'keys'
export let busy = false

// orderOf is what is sent for a kind, or a text that says what is missing.
function orderOf(form) {
	if (kind === 'all') return { category: 'all' }
	const text = form.elements.names.value
	if (!kinds[kind].lines) return text.trim() === '' ? `Say which ${kind}.` : { [kind]: text.trim() }
	const names = text.split('\n').map((line) => line.replace(/\r$/, '')).filter((line) => line.trim() !== '')
	return names.length === 0 ? `Write ${kind} first, one a line.` : { [kind]: names }
}

// dialog shows content above the page until it is closed. Its content is drawn anew by the function that it gets.
export function dialog(name, className, content) {
	const node = document.createElement('dialog')
	node.className = className
	node.setAttribute('aria-label', name)
	const before = document.activeElement
	const close = () => node.close()
	const redraw = () => { patch(node, [content(close, redraw)]); reachCuts(node); }
	node.addEventListener('close', () => {
		if (node.contains(document.getElementById('tip'))) document.body.append(document.getElementById('tip'))
		node.remove()
		if (before?.isConnected) before.focus()
	})
	redraw()
	document.body.append(node)
	node.showModal()
	reachCuts(node)
	return close
}

const entries = (n) => `${count(n)} ${n === 1 ? 'value' : 'values'}`
const removed = (c) => c.memory_entries ?? c.redis_entries

// confirm shows what an order covers, and sends it if that is confirmed. It returns when it has counted.
export async function confirm(order) {
	const [selector, value] = Object.entries(order)[0]
	const everything = selector === 'category' && value === 'all'
	const names = [value].flat()
	const found = state.session.read ? (await ask('invalidate', { ...order, dry_run: true }, 40)).matched : null; // a key that may not read may not count
	const amount = found === null ? 'these values' : `${found.complete ? '' : 'at least '}${entries(removed(found))}`
	let [typed, sending, failed] = ['', false, '']
	const held = () => sending || (everything && typed !== state.session.heading)
	dialog('Confirm the invalidation', 'ask', (close, redraw) => h('form', { method: 'dialog', onsubmit: (event) => {
		event.preventDefault()
		if (held()) return
		sending = true
		redraw()
		send(order).then(close, (error) => { sending = false; failed = error?.message; redraw(); })
	} },
	h('h2', `Invalidate ${everything ? `everything${found === null ? '' : `: ${amount}`}` : amount}?`),
	h('p', everything ? 'Everything in this cache, of every category. Each call then loads until the cache is filled again.'
		: found !== null && removed(found) === 0 && found.complete ? 'Nothing that matches is cached now. Loads that run are kept from being stored.'
			: 'Calls for them load again. Loads that run are kept from being stored.'),
	everything ? null : h('ul.names', names.slice(0, 8).map((name, i) => h('li', { key: `name ${i}` }, soft(`${selector.replace(/s$/, '')} `), cut(name))),
		names.length > 8 ? h('li.soft', { key: 'more' }, `and ${count(names.length - 8)} more`) : null),
	found !== null && !found.complete ? h('p.soft', 'Counting has stopped before its end.') : null,
	everything ? h('label.field', h('span', 'Type ', h('strong', state.session.heading), ' to confirm'),
		h('input', { name: 'typed', ...free, oninput: (event) => { typed = event.target.value; redraw(); } })) : null,
	failed ? h('p.alert', { role: 'alert' }, failed) : null,
	h('div.actions',
		button('Cancel', close, { autofocus: true }),
		h('button', { type: 'submit', class: 'danger', disabled: held() }, sending ? 'Invalidating…' : 'Invalidate'))))
}

async function send(order) {
	const done = (await ask('invalidate', order, 40)).invalidated
	const what = done.complete ? `in ${millis(done.took_ms)}` : 'so far, the rest follows in the background'
	state.outcome = { kind: done.confirmed ? 'ok' : 'warn', text: `Invalidated. ${entries(removed(done))} removed ${what}.${done.confirmed ? '' : ' Redis has not confirmed it yet: it is sent again until it is.'}` }
	page.redraw()
	page.poll()
}

// result is what became of the last order.
export const result = () => h('p', { class: `result ${state.outcome?.kind ?? ''}`, role: 'status', key: 'result' }, state.outcome?.text ?? '')

// asking runs an action, one at a time, and shows why it fails.
export async function asking(action) {
	if (busy) return
	busy = true
	state.outcome = null
	page.redraw()
	try {
		await action()
	} catch (error) {
		if (error instanceof Refused && error.status === 401) page.leave(error)
		else if (error) state.outcome = { kind: 'bad', text: error.message }
	}
	busy = false
	page.redraw()
}

export function invalidate() {
	const { label, hint, lines } = kinds[kind]
	const offered = Object.entries(kinds).filter(([name]) => name !== 'all' || state.session.everything)
	const submit = (event) => {
		event.preventDefault()
		const order = orderOf(event.target)
		if (typeof order === 'string') {
			state.outcome = { kind: 'bad', text: order }
			page.redraw()
		} else asking(() => confirm(order))
	}
	const names = kind === 'category'
		? h('select', { name: 'names', key: 'category' }, state.session.categories.map((name) => h('option', { value: name }, name)))
		: lines ? h('textarea', { name: 'names', rows: '5', key: kind, ...free })
			: h('input', { name: 'names', key: kind, ...free })
	return [
		section('Invalidate', 'nothing is changed before you confirm', h('form.stack', { onsubmit: submit },
			h('fieldset.choice', h('legend', 'By'), offered.map(([name, { title }]) => h('label', { key: name },
				h('input', { type: 'radio', name: 'kind', value: name, checked: name === kind, onchange: () => { kind = name; state.outcome = null; page.redraw(); } }), h('span', title)))),
			label ? h('label.field', h('span', label), names, soft(hint)) : h('p.soft', hint),
			h('div.actions', h('button.primary', { type: 'submit', disabled: busy }, busy ? 'Counting…' : state.session.read ? 'Count and invalidate…' : 'Invalidate…')),
			result())),
	]
}
