// The view of what is cached. It scans nothing before it is asked to.
import { h } from './dom.js';
import { bytes, count, cut, millis, plain, span, written } from './format.js';
import { asking, confirm, dialog, result } from './invalidate.js';
import { ask, page, shortName, state } from './state.js';
import { blank, pill, section, table } from './table.js';

let listing = null; // the last answer
let busy = false;

function list(pattern) {
  busy = true;
  listing = null;
  return asking(async () => {
    try {
      listing = await ask(`keys.json?pattern=${encodeURIComponent(pattern)}`, null, 20);
    } finally {
      busy = false;
    }
  });
}

const columns = [
  { title: 'Key', wide: true, value: (row) => row.key, cell: (row) => h('button', { type: 'button', class: 'link cut mono', onclick: () => inspect(row.key) }, written(row.key)) },
  { title: 'Tier', value: (row) => row.tier, cell: (row) => [row.tier, row.negative ? h('span', { class: 'soft' }, ' not found') : ''] },
  { title: 'TTL', number: true, value: (row) => row.ttl, cell: (row) => (row.stale ? h('span', { class: 'warn', title: `kept for ${span(row.keptFor)}` }, 'over') : span(row.ttl)) },
  { title: 'Age', number: true, value: (row) => row.age, cell: (row) => span(row.age) },
  { title: 'Size', number: true, value: (row) => row.size, cell: (row) => bytes(row.size) },
  { title: 'Tags', wide: true, value: (row) => row.tags.join(', '), cell: (row) => h('span', { class: 'cut mono' }, row.tags.map((tag, i) => [i > 0 ? ', ' : '', written(tag)]), row.allTags > row.tags.length ? ` and ${row.allTags - row.tags.length} more` : '') },
];

export function keys() {
  const submit = (event) => {
    event.preventDefault();
    if (!busy) list(event.target.elements.pattern.value.trim());
  };
  const choose = (event, name) => {
    const { form } = event.target;
    form.elements.pattern.value = `${name}:*`;
    form.requestSubmit();
  };
  return [
    section('Keys', 'what is cached, by a pattern', h('form', { class: 'line', onsubmit: submit },
      h('label', { class: 'field' }, h('span', null, 'Pattern'),
        h('input', { name: 'pattern', required: true, placeholder: 'sessions:ABC:*', autocomplete: 'off', spellcheck: 'false', autocapitalize: 'off' })),
      h('button', { class: 'primary', type: 'submit', disabled: busy }, busy ? 'Listing…' : 'List'),
      h('div', { class: 'chips' }, state.session.categories.map((name) => h('button', { key: name, type: 'button', class: 'chip mono', onclick: (event) => choose(event, name) }, `${name}:*`)))),
    result()),
    listing ? found() : busy ? null : blank('Nothing is scanned until you ask', 'A pattern begins with a category and a colon. ', h('code', null, '*'), ' stands for any text, also across colons.'),
  ];
}

function found() {
  const { rows, more, error, pattern, took_ms } = listing;
  const what = `${more ? `the first ${count(rows.length)} that were found, and there are more` : `${count(rows.length)} found`} in ${millis(took_ms)}${state.processes.size > 1 ? ` by ${shortName(listing.process)}` : ''}`;
  return [
    error ? h('p', { class: 'alert', role: 'alert', key: 'error' }, `The listing is not complete: ${error}.`) : null,
    rows.length === 0 && !error ? blank('No cached key matches', h('code', null, plain(pattern)), ' has no values now. They may have expired, or have been invalidated.')
      : section(plain(pattern), what, table('Keys', columns, rows, { keyOf: (row) => row.key, sorted: null, empty: 'None was found before that.' })),
  ];
}

async function inspect(key) {
  await asking(async () => {
    const entry = await ask(`entry.json?key=${encodeURIComponent(key)}`);
    dialog('A cached value', 'side', (self) => panel(entry, self));
  });
}

function panel(entry, { close, redraw }) {
  return h('p', null, entry.key);
}
