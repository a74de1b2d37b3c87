// The views of the Redis servers, and of the last events.
import { h } from './dom.js';
import { clock, count, cut, millis, span } from './format.js';
import { answers, shortName, state } from './state.js';
import { blank, pill, section, table } from './table.js';

const processColumn = (all) => (all.length > 1 ? [{ title: 'Process', value: (row) => row.process, cell: (row) => cut(shortName(row.process)) }] : []);
const ofAll = (all, pick) => all.flatMap((answer) => (pick(answer) ?? []).map((row) => ({ ...row, process: answer.process })));

export function redis() {
  const all = answers('nodes');
  if (all.length === 0) return [];
  if (all.every((answer) => answer.health.state === 'memory')) {
    return blank('This cache is in memory alone', 'No Redis is configured. ', h('code', null, 'OptionsFromEnv'), ' and REDIS_URL put it on Redis, which processes then share.');
  }
  const nodes = ofAll(all, (answer) => answer.nodes);
  const trips = ofAll(all, (answer) => answer.trips);
  return [
    section('Servers', 'as this process sees them', table('Servers', [
      { title: 'Address', value: (n) => n.addr, cell: (n) => (n.addr ? cut(n.addr) : h('span', { class: 'soft' }, 'not known yet')) },
      { title: 'State', value: (n) => (n.up ? 1 : 0), cell: (n) => (n.up ? pill('ok', 'up') : pill('bad', 'unavailable')) },
      { title: 'Since', value: (n) => n.since, cell: (n) => clock(n.since) },
      { title: 'Pushes changes', value: (n) => (n.tracking ? 1 : 0), cell: (n) => (n.tracking ? 'yes' : 'no') },
      { title: 'Clock', number: true, value: (n) => n.clockOffsetSeconds, cell: (n) => (n.clockWithinSeconds > 0 ? `${n.clockOffsetSeconds < 0 ? '−' : '+'}${millis(Math.abs(n.clockOffsetSeconds) * 1000)}` : '–') },
      ...processColumn(all),
      { title: 'Reason', wide: true, value: (n) => n.reason ?? '', cell: (n) => h('span', { class: 'cut' }, n.reason ?? '') },
    ], nodes, { keyOf: (n) => n.addr + n.process, empty: 'No server is known yet. The state above says why.' })),
    section('Round trips', state.within === 'start' ? 'since the start' : `the last ${span(Math.max(...all.map((a) => a.seconds)))}`, table('Round trips', [
      { title: 'For', value: (t) => t.of },
      { title: 'Count', number: true, value: (t) => t.count, cell: (t) => count(t.count) },
      { title: 'p50', number: true, value: (t) => t.p50, cell: (t) => millis(t.p50) },
      { title: 'p99', number: true, value: (t) => t.p99, cell: (t) => millis(t.p99) },
      ...processColumn(all),
    ], trips, { keyOf: (t) => t.of + t.process })),
    h('p', { class: 'soft note' }, all.map((answer) => `${count(answer.invalidationMessages)} changes pushed, ${count(answer.trackingLost)} times lost track`).join(' · ')),
  ];
}

const names = (event) => (event.kind === 'all' ? h('span', { class: 'soft' }, 'everything')
  : h('span', { class: 'cut mono' }, event.names.map((name, i) => [i > 0 ? ', ' : '', cut(name, { class: null })]), event.count > event.names.length ? ` and ${event.count - event.names.length} more` : ''));

export function recent() {
  const all = answers('recent');
  if (all.length === 0) return [];
  const time = { title: 'Time', value: (e) => e.at, cell: (e) => clock(e.at) };
  const took = { title: 'Took', number: true, value: (e) => e.tookSeconds, cell: (e) => span(e.tookSeconds) };
  const shown = { keyOf: (e) => JSON.stringify(e), sorted: 'Time', down: true };
  const policy = { title: 'Policy', value: (e) => e.policy, cell: (e) => cut(e.policy, { class: 'cut' }) };
  const key = { title: 'Key', wide: true, value: (e) => e.key, cell: (e) => cut(e.key) };
  return [
    section('Invalidations', 'by this process', table('Invalidations', [
      time, { title: 'By', value: (e) => e.kind },
      { title: 'Names', wide: true, value: (e) => e.names?.[0] ?? '', cell: names },
      { title: 'Who', value: (e) => e.actor ?? '', cell: (e) => (e.actor ? cut(e.actor, { class: 'cut' }) : h('span', { class: 'soft' }, 'the program')) },
      { title: 'Removed', number: true, value: (e) => e.removed, cell: (e) => count(e.removed) },
      { title: 'Confirmed', value: (e) => (e.confirmed ? 1 : 0), cell: (e) => (e.confirmed ? 'yes' : pill('warn', 'not yet')) },
      took, ...processColumn(all),
    ], ofAll(all, (a) => a.invalidations), { ...shown, empty: 'No invalidation since the start.' })),
    section('Failed loads', all.some((a) => a.errorsHidden) ? 'the texts of errors need a key with the scope “values”; the log has them too' : null, table('Failed loads', [
      time, policy, key,
      { title: 'Outcome', value: (e) => e.outcome, cell: (e) => pill('bad', e.outcome) },
      { title: 'Keys', number: true, value: (e) => e.count, cell: (e) => count(e.count) }, took,
      { title: 'Error', wide: true, value: (e) => e.error, cell: (e) => cut(e.error, { class: 'cut' }) }, ...processColumn(all),
    ], ofAll(all, (a) => a.failedLoads), { ...shown, empty: 'No load has failed.' })),
    all.some((a) => a.slowLoads) ? section('Slow loads', null, table('Slow loads', [time, policy, key, took, ...processColumn(all)], ofAll(all, (a) => a.slowLoads), { ...shown, empty: 'No load was slow.' })) : null,
    section('Inconsistent values', null, table('Inconsistent values', [
      time, policy, key, { title: 'Age', number: true, value: (e) => e.ageSeconds, cell: (e) => span(e.ageSeconds) }, ...processColumn(all),
    ], ofAll(all, (a) => a.inconsistent), { ...shown, empty: 'None was found. Options.ConsistencyCheck looks for them.' })),
  ];
}
