// The page: the login, the frame around the views, and the polls.
import { button, free, h, patch, reachCuts, soft, watchCuts } from './dom.js'
import { hot, recent, redis } from './events.js'
import { clock, plain, span } from './format.js'
import { invalidate } from './invalidate.js'
import { keys } from './keys.js'
import { overview } from './overview.js'
import { Lost, Refused, answers, ask, atStart, enter, forget, page, shortName, state, took } from './state.js'
import { layers, pill } from './table.js'

const pause = 2000; // between two polls, in milliseconds

// The views. A poll asks for the answer of the one that is open.
const views = {
	overview: { title: 'Overview', view: overview, answer: 'overview', within: true },
	redis: { title: 'Redis', view: redis, answer: 'nodes', within: true },
	keys: { title: 'Keys', view: keys, answer: 'session' },
	invalidate: { title: 'Invalidate', view: invalidate, needs: 'invalidate', answer: 'session' },
	recent: { title: 'Recent', view: recent, answer: 'recent' },
	hot: { title: 'Hot keys', view: hot, answer: 'hot' },
}
const periods = { '1m': '1 min', '5m': '5 min', '1h': '1 h', start: 'Start' }

const offered = () => Object.entries(views).filter(([, { needs = 'read' }]) => state.session[needs])
function open() {
	const name = location.hash.slice(1)
	const list = offered()
	return (list.find(([own]) => own === name) ?? list[0] ?? [''])[0]
}

let timer = 0
let polls = 0; // an answer that a newer poll has overtaken is not drawn

async function poll() {
	clearTimeout(timer)
	const number = ++polls
	if (document.hidden || !state.session) return
	const { answer = 'session', within } = views[open()] ?? {}
	let next = pause
	try {
		const got = await ask(`${answer}.json${within ? `?within=${state.within}` : ''}`)
		if (number !== polls) return
		took(answer, got)
		if (answer === 'session') state.session = got
		Object.assign(state, { lost: null, notice: '' })
	} catch (error) {
		if (number !== polls) return
		if (error instanceof Refused && error.status === 401) return leave(error)
		if (error instanceof Lost) state.lost ??= { since: Date.now(), why: error.message }
		else if (error instanceof Refused) {
			Object.assign(state, { lost: null, notice: error.message })
			next = Math.max(pause, error.after * 1000)
		} else throw error
	}
	timer = setTimeout(poll, next)
	redraw()
}

// leave goes back to the login: the key is not known any more, or the operator is done.
function leave(error) {
	forget()
	poll()
	state.refusal = error ? 'This key is no longer accepted.' : ''
	redraw()
	document.querySelector('input[name=key]')?.focus()
}

let entering = false

async function login(event) {
	event.preventDefault()
	const { key, keep } = event.target.elements
	await begin(key.value.trim(), keep.checked)
	if (!state.session) key.select()
	else key.value = ''
}

async function begin(key, keep) {
	entering = true
	state.refusal = ''
	redraw()
	try {
		state.session = await enter(key, keep)
	} catch (error) {
		if (error instanceof Refused && error.status === 401) state.refusal = key ? 'This key is not accepted. Check that all of it was copied.' : ''
		else if (error instanceof Lost) state.refusal = `The server does not answer: ${error.message}. Try again.`
		else state.refusal = error.message
	}
	entering = false
	redraw()
	if (state.session) {
		document.getElementById('main').focus()
		await poll()
	}
}

const loginForm = () => h('main.login', { key: 'login' }, h('form', { onsubmit: login, class: state.refusal ? 'refused' : null },
	h('div.brand', layers(), h('h1', 'Cache')),
	h('label.field', h('span', 'API key'),
		h('input', { name: 'key', type: 'password', required: true, autofocus: true, ...free, 'aria-invalid': state.refusal ? 'true' : null, 'aria-describedby': 'refusal' })),
	h('p', { id: 'refusal', role: 'alert', class: 'refusal' }, state.refusal),
	h('label.check', h('input', { name: 'keep', type: 'checkbox' }), h('span', 'Keep it in this tab')),
	h('button.primary', { type: 'submit', disabled: entering }, entering ? 'One moment…' : 'Open'),
	h('p.soft', 'It is sent to this server alone, and forgotten with the page.')))

// standing is the state of the processes that are shown: the worst of them.
function standing() {
	const some = (kind) => shown().some(kind)
	if (state.lost) return pill('bad', 'No answer')
	if (some(({ usable }) => !usable)) return pill('bad', 'Closed')
	if (some(({ health }) => health.state === 'degraded')) return pill('warn', 'Redis unavailable')
	if (some(({ health }) => health.reason)) return pill('warn', 'Connected, no pushes')
	return pill('ok', some(({ health }) => health.state === 'connected') ? 'Connected' : 'In memory')
}

function shown() {
	const all = [...state.processes].filter(([name]) => state.process === '' || state.process === name).map(([, process]) => process.standing)
	return all.length > 0 ? all : [state.session]
}

// banners say what is wrong, above the view.
function banners() {
	const list = []
	const say = (kind, title, text) => list.push(h('div', { class: `banner ${kind}`, role: 'status', key: title }, h('strong', title), h('span', text)))
	if (state.lost) say('bad', 'The server does not answer', `since ${clock(state.lost.since)}: ${state.lost.why}. What is shown is from before. It is asked every two seconds.`)
	if (state.notice) say('warn', 'The last answer was a refusal', state.notice)
	for (const { health, usable, process } of shown()) {
		const whose = state.processes.size > 1 ? ` (${shortName(process)})` : ''
		if (!usable && health.reason.includes('nil')) say('bad', 'There is no cache here', 'The program has mounted this page without one.')
		else if (!usable) say('bad', `This cache is closed${whose}`, 'Its process is stopping. The figures are its last ones.')
		else if (health.state === 'degraded') say('warn', `Redis is unavailable${whose}`, `since ${clock(health.since)}: ${health.reason}. Memory and loaders answer.`)
		else if (health.reason) say('warn', `Connected${whose}`, health.reason)
	}
	return list
}

function frame() {
	const name = open()
	const { view, within, title } = views[name] ?? { view: () => h('p.soft', 'This key may neither read nor invalidate.') }
	const processes = [...state.processes.keys()].sort()
	document.title = `${title ?? 'Cache'} · ${plain(state.session.heading)}`
	return [
		h('header', { key: 'header' },
			h('div.brand', layers(), h('h1.cut', plain(state.session.heading))),
			standing(),
			processes.length > 1
				? h('label.pick', soft('Process'), h('select', { selected: state.process, onchange: (event) => { state.process = event.target.value; redraw(); } },
					h('option', { value: '', key: '' }, `all ${processes.length}`), processes.map((own) => h('option', { value: own, key: own }, shortName(own)))))
				: h('span.soft.cut.mono.process', shortName(processes[0] ?? state.session.process)),
			h('span.space'),
			h('span.soft.cut.who', plain(state.session.key)),
			button('Sign out', () => leave(), { class: 'quiet' })),
		h('nav', { 'aria-label': 'Views', key: 'nav' },
			offered().map(([own, { title: text }]) => h('a', { href: `#${own}`, key: own, 'aria-current': own === name ? 'page' : null }, text)),
			h('span.space'),
			within ? h('fieldset.choice.small', h('legend.unseen', 'Period'), Object.entries(periods).map(([own, text]) => h('label', { key: own },
				h('input', { type: 'radio', name: 'within', value: own, checked: own === state.within, onchange: () => { state.within = own; poll(); redraw(); } }), h('span', text)))) : null),
		h('main', { id: 'main', tabindex: '-1', key: `main ${name}`, class: state.lost ? 'frozen' : null, 'aria-label': title ?? 'Cache' }, banners(), view()),
	]
}

function redraw() {
	const root = document.getElementById('page')
	patch(root, state.session ? frame() : [loginForm()])
	reachCuts(root)
}

Object.assign(page, { redraw, poll, leave })
addEventListener('hashchange', () => { redraw(); poll(); })
addEventListener('resize', () => reachCuts(document))
document.addEventListener('visibilitychange', poll)
watchCuts()
redraw()
const key = atStart()
if (key !== null) await begin(key, false)
