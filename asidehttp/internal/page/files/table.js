// Tables that can be sorted by any column, and the other parts that views share.
import { h } from './dom.js';
import { page } from './state.js';

const sorts = new Map(); // name of a table -> { column, down }

// table describes a table. A column has a title, value(row) to sort by, cell(row) if that differs, and number for those that are aligned right.
export function table(name, columns, rows, { keyOf, sorted, down = false, empty, caption = name }) {
  const sort = sorts.get(name) ?? { column: sorted, down };
  const by = columns.find((column) => column.title === sort.column);
  const list = by ? rows.toSorted((a, b) => compare(by.value(a), by.value(b)) * (sort.down ? -1 : 1)) : rows;
  const turn = (column) => {
    sorts.set(name, { column: column.title, down: sort.column === column.title ? !sort.down : Boolean(column.number) });
    page.redraw();
  };
  const head = columns.map((column) => {
    const own = sort.column === column.title;
    return h('th', { scope: 'col', class: column.number ? 'number' : column.wide ? 'wide' : null, 'aria-sort': own ? (sort.down ? 'descending' : 'ascending') : null },
      column.value
        ? h('button', { class: 'sort', type: 'button', onclick: () => turn(column) }, column.title, h('span', { class: 'arrow', 'aria-hidden': 'true' }, own ? (sort.down ? '↓' : '↑') : ''))
        : column.title);
  });
  const body = list.map((row) => h('tr', { key: `row ${keyOf(row)}` }, columns.map((column, i) => {
    const content = (column.cell ?? column.value)(row);
    const kind = column.number ? 'number' : column.wide ? 'wide' : null;
    return i === 0 ? h('th', { scope: 'row', class: kind }, content) : h('td', { class: kind }, content);
  })));
  return h('div', { class: 'scroll', role: 'region', tabindex: '0', 'aria-label': caption, key: `table ${name}` },
    h('table', null,
      h('caption', { class: 'unseen' }, caption),
      h('thead', null, h('tr', null, head)),
      h('tbody', null, body.length > 0 ? body : h('tr', { key: 'none' }, h('td', { class: 'none', colspan: String(columns.length) }, empty)))));
}

const compare = (a, b) => (typeof a === 'number' ? a - b : String(a).localeCompare(String(b), 'en'));

export const section = (title, side, ...content) => h('section', { key: `section ${title}`, class: 'card' },
  h('div', { class: 'head' }, h('h2', null, title), side ? h('p', { class: 'soft' }, side) : null), content);

export const blank = (title, ...text) => h('div', { class: 'blank', key: `blank ${title}` }, layers(), h('h2', null, title), h('p', null, text));

// layers is the sign of the page: two levels, one on the other.
export const layers = () => h('svg', { class: 'layers', viewBox: '0 0 24 24', 'aria-hidden': 'true' },
  h('rect', { x: '3', y: '4', width: '18', height: '7', rx: '1.5' }), h('rect', { x: '3', y: '13', width: '18', height: '7', rx: '1.5', class: 'lower' }));

// pill is a state, in words beside its colour.
export const pill = (kind, text) => h('span', { class: `pill ${kind}` }, text);
