// Numbers, times and texts as the page writes them.
import { h } from './dom.js'

const whole = new Intl.NumberFormat('en')
const none = '–'

export const count = (n) => (n >= 1e6 ? `${three(n / 1e6)} M` : whole.format(n))

// three is a number with three significant digits.
function three(n) {
	const size = Math.abs(n)
	if (size < 0.005) return '0'
	return size >= 100 ? whole.format(Math.round(n)) : n.toFixed(size >= 10 ? 1 : 2)
}

// perSecond is a rate, or nothing if the period is not known.
export const perSecond = (n, seconds) => (seconds >= 0.5 ? `${three(n / seconds)}/s` : none)

export const percent = (part, of) => (of > 0 ? `${(Math.floor((1000 * part) / of) / 10).toFixed(1)}%` : none)

// millis is a time that is given in milliseconds.
export function millis(ms) {
	if (!(ms > 0)) return none
	if (ms < 1) return `${Math.max(1, Math.round(ms * 1000))} µs`
	if (ms < 1000) return `${three(ms)} ms`
	return span(ms / 1000)
}

// span is a time that is given in seconds.
export function span(seconds) {
	if (seconds < 0.9995) return seconds > 0 ? millis(seconds * 1000) : '0 s'
	if (seconds < 59.95) return `${seconds % 1 ? three(seconds) : seconds} s`
	const s = Math.round(seconds)
	if (s < 3600) return `${Math.floor(s / 60)} m${s % 60 ? ` ${s % 60} s` : ''}`
	if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} m`
	return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`
}

export function bytes(n) {
	const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
	let unit = 0
	for (; n >= 1024 && unit < units.length - 1; unit++) n /= 1024
	return `${unit === 0 ? n : three(n)}\u00a0${units[unit]}`
}

// clock is the time of day, with the date if that is another day.
export function clock(text) {
	const at = new Date(text)
	if (!(at.getFullYear() > 1)) return none
	const time = at.toLocaleTimeString('en-GB')
	return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })} ${time}`
}

// Characters that cannot be seen, or that change the order of others: controls, format characters, separators but for the space, and the like.
const hidden = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u{2800}]|(?! )\p{Zs}/gu
const escaped = (c) => `\\u{${c.codePointAt(0).toString(16)}}`

// plain is a text from the cache as a string, in which nothing is hidden.
export const plain = (text) => String(text).replace(hidden, escaped)

// written is the same as elements: what was written out is marked, and the text turns nothing around it.
export function written(text) {
	const parts = []
	let from = 0
	for (const found of String(text).matchAll(hidden)) {
		parts.push(text.slice(from, found.index), h('span.escaped', escaped(found[0])))
		from = found.index + found[0].length
	}
	parts.push(String(text).slice(from))
	return h('bdi.text', parts.filter((part) => part !== ''))
}

// cut is a text from the cache, cut to the width of its column, and name is a text of the program.
export const cut = (text) => h('span.cut.mono', written(text))
export const name = (text) => h('span.cut', written(text))
