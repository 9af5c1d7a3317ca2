
'use strict';

/** How much of the past is shown, and how little if there is no more, in milliseconds. */
const MOST = 300e3, LEAST = 60e3;
/** Two samples further apart than this are not connected: the page was hidden, or there was no answer. */
const GAP = 10e3;

/** An element. Children are elements or text; text never becomes markup. */
function html(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes, ...children) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Changes a text only where it differs, so that a selection survives. */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const known = value => value !== null && value !== undefined;

const show = {
  count: value => Math.round(value).toLocaleString('en-US'),
  rate: value => value > 0 && value < 10 ? value.toFixed(1) : show.count(value),
  cores: value => value.toFixed(2),
  milliseconds: value => value >= 1000 ? `${(value / 1000).toFixed(1)} s`
    : `${value >= 10 || value < 0.05 ? value.toFixed(0) : value.toFixed(1)} ms`,
  bytes: value => {
    const power = Math.min(4, Math.max(0, Math.floor(Math.log2(Math.max(1, value)) / 10)));
    const number = value / 1024 ** power;
    return `${number.toFixed(power > 0 && number < 10 ? 1 : 0)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][power]}`;
  },
  /** The two largest units, the smaller one where it is not zero. */
  span: seconds => {
    if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
    const units = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
    const first = units.findIndex(([length]) => seconds >= length);
    const parts = units.slice(first, first + 2).map(([length, unit], index) =>
      [Math.floor(index === 0 ? seconds / length : seconds % units[first][0] / length), unit]);
    return parts.filter(([count]) => count > 0).map(part => part.join(' ')).join(' ');
  },
};

/** The next round number that is at least this, in the unit in which it is shown. */
function roundUp(value, isBytes) {
  const unit = isBytes ? 1024 ** Math.floor(Math.log2(value) / 10) : 1;
  const power = unit * 10 ** Math.floor(Math.log10(value / unit));
  return power * [1, 2, 3, 4, 5, 6, 8, 10].find(step => step * power >= value * 0.9999);
}

/** Runs of samples in which a value is known without a gap. */
function runs(samples, key) {
  const found = [];
  let last = -Infinity;
  for (const sample of samples) {
    if (!known(sample[key])) continue;
    if (sample.at - last > GAP) found.push([]);
    found.at(-1).push(sample);
    last = sample.at;
  }
  return found;
}

/** One figure over time: its series have a name, a key of the samples and a colour. */
class Plot {
  constructor({ title, series, show, least, limit, isBytes }) {
    Object.assign(this, { title, series, show, least, limit, isBytes });
    this.paths = series.map(one => ({
      area: shape('path', { class: `area ${one.colour}` }), line: shape('path', { class: one.colour }),
    }));
    this.limitLine = shape('path', { class: 'limit' });
    this.marks = shape('path', { class: 'marks' });
    this.cursor = shape('path', { class: 'cursor' });
    this.svg = shape('svg', { viewBox: '0 0 100 100', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      shape('path', { class: 'grid', d: 'M0 1H100M0 50H100' }), ...this.paths.map(path => path.area), this.limitLine,
      this.marks, ...this.paths.map(path => path.line), shape('path', { class: 'base', d: 'M0 100H100' }), this.cursor);
    this.top = html('span', { class: 'top', 'aria-hidden': 'true' });
    this.area = html('div', { class: 'plot', role: 'img', tabindex: '0' }, this.svg, this.top);
    this.value = html('output', {});
    this.begin = html('span', {});
    this.texts = series.map(() => html('span', {}));
    const entries = series.map((one, index) => html('span', {}, html('i', { class: one.colour }), this.texts[index]));
    this.limitText = html('span', {});
    this.limitEntry = html('span', { hidden: '' }, html('i', { class: 'limit' }), this.limitText);
    this.figure = html('figure', {}, html('figcaption', {}, html('h3', {}, title), this.value), this.area,
      html('div', { class: 'axis', 'aria-hidden': 'true' }, this.begin, html('span', {}, 'now')),
      html('div', { class: 'legend' }, ...entries, this.limitEntry));
  }

  /** Shows these samples; the values are those of the chosen sample. */
  draw(samples, start, end, chosen) {
    const values = this.series.flatMap(one => samples.map(sample => sample[one.key]).filter(known));
    this.figure.hidden = values.length === 0;
    if (this.figure.hidden) return;
    const most = Math.max(this.least, ...values);
    const limits = samples.map(sample => sample[this.limit]).filter(known);
    // A limit that is far away would press everything else to the ground.
    const withLimit = limits.length > 0 && Math.max(...limits) < 4 * most;
    const top = roundUp(withLimit ? Math.max(most, ...limits) : most, this.isBytes);
    const x = at => ((at - start) / (end - start) * 100).toFixed(2);
    const y = value => (100 - value / top * 99).toFixed(2);
    const line = (run, key) => `M${run.map(sample => `${x(sample.at)} ${y(sample[key])}`).join('L')}`;
    this.series.forEach(({ key }, index) => {
      const pieces = runs(samples, key);
      this.paths[index].line.setAttribute('d', pieces.map(run => line(run, key)).join(''));
      this.paths[index].area.setAttribute('d', pieces.map(run =>
        `${line(run, key)}V100H${x(run[0].at)}Z`).join(''));
    });
    this.limitLine.setAttribute('d', withLimit ? runs(samples, this.limit).map(run => line(run, this.limit)).join('') : '');
    const marked = samples.filter(sample => sample.marks.length > 0);
    this.marks.setAttribute('d', marked.map(sample => `M${x(sample.at)} 0V100`).join(''));
    this.cursor.setAttribute('d', chosen !== samples.at(-1) ? `M${x(chosen.at)} 0V100` : '');
    write(this.top, this.show(top));
    write(this.begin, `${show.span((end - start) / 1000)} ago`);
    this.describe(chosen);
  }

  describe(sample) {
    const said = key => known(sample[key]) ? this.show(sample[key]) : '–';
    write(this.value, said(this.series[0].key));
    this.series.forEach((one, index) => write(this.texts[index], `${one.name} ${said(one.key)}`));
    this.limitEntry.hidden = !known(sample[this.limit]);
    write(this.limitText, `limit ${said(this.limit)}`);
    const all = this.series.map(one => `${one.name} ${said(one.key)}`).join(', ');
    this.area.setAttribute('aria-label', `${this.title}: ${all}`);
  }
}

/** A line of the last values of a worker. */
function sparkline() {
  const line = shape('path', { class: 'blue' });
  const svg = shape('svg', { viewBox: '0 0 100 100', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, line);
  const draw = values => {
    const top = Math.max(1, ...values);
    const points = values.map((value, index) => `${(index / 29 * 100).toFixed(1)} ${(97 - value / top * 94).toFixed(1)}`);
    line.setAttribute('d', values.length > 1 ? `M${points.join('L')}` : '');
  };
  return { svg, draw };
}
