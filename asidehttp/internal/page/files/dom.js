// A description of elements, and the changes that make the page equal to it. Elements that stay keep focus, selection and scroll position.
// Text becomes text nodes alone: nothing here parses markup.

const described = new WeakMap(); // element -> its last description

// h describes an element: its tag and classes, its attributes and listeners, if any, and its children. A key tells children of one parent apart.
export function h(name, ...children) {
	const [tag, ...classes] = name.split('.')
	const first = children[0]
	const props = first?.constructor === Object && !first.children ? { ...children.shift() } : {}
	if (classes.length > 0) props.class = classes.join(' ')
	return { tag, props, key: props.key, children }
}

// soft is text of less weight, and free is for fields whose text no browser may correct.
export const soft = (...text) => h('span.soft', text)
export const free = { autocomplete: 'off', spellcheck: 'false', autocapitalize: 'off' }

// button describes a button that submits no form.
export const button = (text, onclick, props) => h('button', { type: 'button', onclick, ...props }, text)

// patch makes the children of an element equal to a list of descriptions.
export function patch(parent, list) {
	const focused = document.activeElement
	patchChildren(parent, list)
	if (focused !== document.activeElement && focused?.isConnected && parent.contains(focused)) focused.focus()
}

function patchChildren(parent, list) {
	const keyed = new Map()
	for (const node of parent.childNodes) {
		const key = described.get(node)?.key
		if (key !== undefined) keyed.set(key, node)
	}
	let at = parent.firstChild
	for (const want of list.flat(Infinity)) {
		if (want === null || want === undefined || want === false) continue
		const node = typeof want === 'object' ? element(parent, want, want.key === undefined ? at : keyed.get(want.key)) : text(String(want), at)
		if (node === at) at = at.nextSibling
		else parent.insertBefore(node, at)
	}
	while (at) {
		const next = at.nextSibling
		at.remove()
		at = next
	}
}

function text(want, old) {
	if (old?.nodeType !== Node.TEXT_NODE) return document.createTextNode(want)
	if (old.data !== want) old.data = want
	return old
}

function element(parent, want, old) {
	const before = old && described.get(old)
	const same = before && before.tag === want.tag && before.key === want.key
	const svg = want.tag === 'svg' || parent.namespaceURI.endsWith('svg')
	const node = same ? old : svg ? document.createElementNS('http://www.w3.org/2000/svg', want.tag) : document.createElement(want.tag)
	const had = same ? before.props : {}
	for (const name in had) if (!(name in want.props)) set(node, name, null)
	for (const name in want.props) if (had[name] !== want.props[name]) set(node, name, want.props[name])
	described.set(node, want)
	patchChildren(node, want.children)
	if (want.props.selected !== undefined && node.value !== want.props.selected) node.value = want.props.selected; // a select has its options now
	return node
}

function set(node, name, value) {
	if (name === 'key' || name === 'selected') return
	if (name.startsWith('on')) node[name] = value
	else if (value === null || value === undefined || value === false) node.removeAttribute(name)
	else node.setAttribute(name, value === true ? '' : value)
}

// watchCuts shows the whole text of an element of the class cut where the pointer or the focus is, if not all of it is visible.
export function watchCuts() {
	const tip = document.getElementById('tip')
	let cell = null
	const show = (event) => {
		cell = event.target.closest?.('.cut')
		place()
	}
	const place = () => {
		tip.hidden = !(cell?.isConnected && isCut(cell))
		if (tip.hidden) return
		tip.textContent = cell.textContent
		const above = document.querySelector('dialog[open]') ?? document.body // nothing but its own content is above a modal dialog
		above.append(tip)
		const box = cell.getBoundingClientRect()
		const fits = box.bottom + 4 + tip.offsetHeight < innerHeight
		tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`
		tip.style.top = `${fits ? box.bottom + 4 : Math.max(8, box.top - 4 - tip.offsetHeight)}px`
	}
	const hide = () => { cell = null; tip.hidden = true }
	document.addEventListener('mouseover', (event) => { if (!tip.contains(event.target)) show(event) })
	document.addEventListener('focusin', show)
	document.addEventListener('focusout', hide)
	document.addEventListener('scroll', () => (cell === document.activeElement ? place() : hide()), true) // the focus scrolls to where it is
	document.addEventListener('keydown', (event) => { if (event.key === 'Escape') hide() })
}

const isCut = (cell) => cell.scrollWidth > cell.clientWidth

// reachCuts puts those elements into the order of the Tab key that are cut, and no others.
export function reachCuts(parent) {
	for (const cell of parent.querySelectorAll('.cut:not(button)')) {
		const wanted = isCut(cell) ? 0 : -1
		if (wanted === 0 && cell.tabIndex !== 0) cell.tabIndex = 0
		if (wanted === -1 && cell.hasAttribute('tabindex')) cell.removeAttribute('tabindex')
	}
}
