// The views of the Redis servers, and of the last events.
import { h, soft } from './dom.js'
import { clock, count, cut, millis, name, span, written } from './format.js'
import { answers, shortName } from './state.js'
import { blank, col, num, period, pill, section, table, wide } from './table.js'

const processColumn = (all) => (all.length > 1 ? [col('Process', (row) => row.process, (row) => cut(shortName(row.process)))] : [])
const ofAll = (all, pick) => all.flatMap((answer) => (pick(answer) ?? []).map((row) => ({ ...row, process: answer.process })))

export function redis() {
	const all = answers('nodes')
	if (all.length === 0) return []
	if (all.every((answer) => answer.health.state === 'memory')) {
		return blank('This cache is in memory alone', 'No Redis is configured. ', h('code', 'OptionsFromEnv'), ' and REDIS_URL put it on Redis, which processes then share.')
	}
	const nodes = ofAll(all, (answer) => answer.nodes)
	const trips = ofAll(all, (answer) => answer.trips)
	return [
		section('Servers', null, table('Servers', [
			col('Address', (n) => n.addr, (n) => (n.addr ? cut(n.addr) : soft('not known yet'))),
			col('State', (n) => (n.up ? 1 : 0), (n) => (n.up ? pill('ok', 'up') : pill('bad', 'unavailable'))),
			col('Since', (n) => n.since, (n) => clock(n.since)),
			col('Pushes', (n) => (n.tracking ? 'yes' : 'no')),
			{ ...num('Clock', (n) => n.clockOffsetSeconds), cell: (n) => (n.clockWithinSeconds > 0 ? `${n.clockOffsetSeconds < 0 ? '−' : '+'}${millis(Math.abs(n.clockOffsetSeconds) * 1000)}` : '–') },
			num('Trips', (n) => Object.values(n.trips ?? {}).reduce((a, b) => a + b, 0)), ...processColumn(all),
			wide('Reason', (n) => n.reason ?? '', (n) => name(n.reason ?? '')),
		], nodes, { keyOf: (n) => n.addr + n.process, empty: 'No server is known yet.' })),
		section('Round trips', period(all), table('Round trips', [
			col('For', (t) => t.of), num('Count', (t) => t.count), num('p50', (t) => t.p50, millis), num('p99', (t) => t.p99, millis), ...processColumn(all), wide('', () => '', () => ''),
		], trips, { keyOf: (t) => t.of + t.process })),
		h('p.soft.note', all.map((answer) => `${count(answer.invalidationMessages)} changes pushed, ${count(answer.trackingLost)} times lost track`).join(' · ')),
	]
}

export function hot() {
	const all = answers('hot')
	if (all.length === 0) return []
	if (!all.some(({ on }) => on)) return blank('Hot keys are not counted', 'Set ', h('code', 'Options.HotKeys'), ' to several times as many keys as you want to see. A hit in memory then takes a few percent longer.')
	return section('Hot keys', 'by their share of the calls of the last minutes', table('Hot keys', [
		wide('Key', (k) => k.key), num('Share', (k) => k.share, share), num('Within', (k) => k.within, (n) => `± ${share(n)}`), ...processColumn(all),
	], ofAll(all, (a) => a.keys), { keyOf: (k) => k.key + k.process, sorted: 'Share', down: true, empty: 'No call was counted yet: it is one in 1,024.' }))
}

const share = (n) => `${(100 * n).toFixed(2)}%`

const names = (event) => (event.kind === 'all' ? soft('everything')
	: h('span.cut.mono', event.names.map((name, i) => [i > 0 ? ', ' : '', written(name)]), event.count > event.names.length ? ` and ${event.count - event.names.length} more` : ''))

export function recent() {
	const all = answers('recent')
	if (all.length === 0) return []
	const time = col('Time', (e) => e.at, (e) => clock(e.at))
	const took = num('Took', (e) => e.tookSeconds, span)
	const policy = col('Policy', (e) => e.policy, (e) => name(e.policy))
	const key = wide('Key', (e) => e.key)
	const list = (title, side, columns, pick, empty) => section(title, side, table(title, [time, ...columns, ...processColumn(all)], ofAll(all, pick), { keyOf: JSON.stringify, sorted: 'Time', down: true, empty }))
	return [
		list('Invalidations', null, [
			col('By', (e) => e.kind), wide('Names', (e) => e.names?.[0] ?? '', names),
			col('Who', (e) => e.actor ?? '', (e) => (e.actor ? name(e.actor) : soft('the program'))),
			num('Removed', (e) => e.removed), col('Confirmed', (e) => (e.confirmed ? 'yes' : 'not yet'), (e) => (e.confirmed ? 'yes' : pill('warn', 'not yet'))), took,
		], (a) => a.invalidations, 'No invalidation since the start.'),
		list('Failed loads', all.some((a) => a.errorsHidden) ? 'the texts of errors need a key with the scope “values”; the log has them too' : null, [
			policy, key, col('Outcome', (e) => e.outcome, (e) => pill('bad', e.outcome)), num('Keys', (e) => e.count), took,
			wide('Error', (e) => e.error, (e) => name(e.error)),
		], (a) => a.failedLoads, 'No load has failed.'),
		list('Slow loads', null, [policy, key, took], (a) => a.slowLoads, 'None was found. Options.SlowLoad says which are slow.'),
		list('Inconsistent values', null, [policy, key, num('Age', (e) => e.ageSeconds, span)], (a) => a.inconsistent, 'None was found. Options.ConsistencyCheck looks for them.'),
	]
}
