// What the page knows, and how it asks the server.

// The key stays in this variable, unless the operator asks to keep it for the tab.
let key = ''
const kept = 'aside-key'
const withSession = document.documentElement.hasAttribute('data-session'); // the program may know the operator by a cookie

export const state = {
	session: null, // what the key may do; null before the login
	refusal: '', // why the login form is shown again
	processes: new Map(), // name -> { seen, answers: Map(view -> its last answer) }
	process: '', // the one that is shown; '' is all
	within: '5m',
	lost: null, // { since, why } while the server does not answer
	notice: '', // why the last poll failed, if the server has answered
	listing: null, // the last answer of the view of keys
	outcome: null, // { kind, text } of the last action
}

// redraw is set by the page.
export const page = { redraw() {}, poll() {}, leave() {} }

// A Refused is an answer that refuses a request, and says why. A Lost is no answer.
export class Refused extends Error {
	constructor(status, detail, after) {
		super(detail)
		this.status = status
		this.after = after
	}
}
export class Lost extends Error {}

// ask sends a request to a URL beside the page, and returns its answer. With a body it is a POST.
export async function ask(path, body, patience = 10) {
	const { processes } = state
	const out = () => processes !== state.processes; // the operator has signed out
	const headers = {}
	if (key) headers.Authorization = `Bearer ${key}`
	if (body) headers['Content-Type'] = 'application/json'
	let answer
	try {
		answer = await fetch(path, {
			method: body ? 'POST' : 'GET', headers, body: body && JSON.stringify(body), cache: 'no-store', redirect: 'error',
			credentials: withSession ? 'same-origin' : 'omit', signal: AbortSignal.timeout(patience * 1000),
		})
	} catch (error) {
		throw out() ? null : new Lost(error.name === 'TimeoutError' ? `no answer within ${patience} s` : 'the connection failed')
	}
	const own = (answer.headers.get('Content-Type') ?? '').startsWith('application/')
	const json = own ? await answer.json().catch(() => null) : null
	if (out()) throw null
	if (answer.ok && json) return json
	if (answer.ok || !json) throw new Lost(`something else answered: ${answer.status} ${answer.statusText}`)
	throw new Refused(answer.status, json.detail ?? answer.statusText, Number(answer.headers.get('Retry-After')) || 0)
}

// enter tries a key, '' for none, and says what it may do.
export async function enter(text, keep) {
	if (/[^!-~]/.test(text)) throw new Refused(401, 'no key has such characters')
	key = text
	try {
		const session = await ask('session.json')
		if (keep) sessionStorage.setItem(kept, key)
		return session
	} catch (error) {
		key = ''
		throw error
	}
}

// forget forgets the key, and all that it has shown.
export function forget() {
	key = ''
	if (sessionStorage.length > 0) sessionStorage.removeItem(kept)
	Object.assign(state, { session: null, processes: new Map(), process: '', lost: null, notice: '', listing: null, outcome: null })
	document.querySelector('dialog')?.close()
}

// atStart is the key to begin with, or null if there is none to try.
export const atStart = () => sessionStorage.getItem(kept) ?? (withSession ? '' : null)

// took keeps an answer of one process. Processes that have not answered for long are forgotten.
export function took(view, answer) {
	const now = Date.now()
	const process = state.processes.get(answer.process) ?? { answers: new Map() }
	process.seen = now
	process.answers.set(view, answer)
	process.standing = answer
	state.processes.set(answer.process, process)
	for (const [name, { seen }] of state.processes) if (now - seen > 60_000) state.processes.delete(name)
	if (!state.processes.has(state.process)) state.process = ''
}

// answers are the last answers about a view: of the process that is shown, or of all, by name.
export function answers(view) {
	const found = []
	for (const name of [...state.processes.keys()].sort()) {
		const answer = state.processes.get(name).answers.get(view)
		if (answer && (state.process === '' || state.process === name)) found.push(answer)
	}
	return found
}

// shortName is the host and the pid of a process, and its start too where that is needed to tell it apart.
export function shortName(name) {
	const short = name.slice(0, name.lastIndexOf('/'))
	const alike = [...state.processes.keys()].filter((other) => other.startsWith(`${short}/`))
	return alike.length > 1 ? name : short
}
