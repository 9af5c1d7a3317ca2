
/** How often the launcher is asked, and how long it may take, in milliseconds. Nobody asks while the page is hidden. */
const PAUSE = 2000, PATIENCE = 5000;
/** Rates are those since this many answers ago: workers report once a second, so those of a moment would jump. */
const SINCE = 3;

const PLOTS = [
  new Plot({ title: 'Requests per second', show: show.rate, least: 1, series: [
    { key: 'served', name: 'served', colour: 'blue' }, { key: 'refused', name: 'refused (503)', colour: 'red' }] }),
  new Plot({ title: 'Latency, last 10 seconds', show: show.milliseconds, least: 1, series: [
    { key: 'p50', name: 'p50', colour: 'teal' }, { key: 'p99', name: 'p99', colour: 'violet' }] }),
  new Plot({ title: 'Requests in flight', show: show.count, least: 1, limit: 'capacity', series: [
    { key: 'busy', name: 'in flight', colour: 'violet' }] }),
  new Plot({ title: 'Event-loop lag', show: show.milliseconds, least: 5, series: [
    { key: 'lag', name: 'of the slowest worker', colour: 'teal' }] }),
  new Plot({ title: 'CPU cores in use', show: show.cores, least: 0.1, series: [
    { key: 'cpu', name: 'all workers', colour: 'blue' }] }),
  new Plot({ title: 'Memory', show: show.bytes, least: 1 << 20, limit: 'memoryLimit', isBytes: true, series: [
    { key: 'memory', name: 'all workers, shared pages in each', colour: 'teal' }] }),
];

/** What the page has seen: the samples of the plots, the rates of each worker, and the ends of workers. */
class History {
  samples = [];
  rates = new Map();
  exits = new Map();
  answers = [];

  /** Takes in an answer. */
  add(status, at) {
    const last = this.answers.at(-1);
    const isAnother = last && status.launcher.uptime_seconds < last.launcher.uptime_seconds;
    if (isAnother) Object.assign(this, new History());
    const { rates, requests } = this.since(this.answers[0], status);
    const workers = workersOf(status);
    const loads = workers.map(worker => worker.load).filter(known);
    const ready = loads.filter(load => load.state === 'ready');
    this.follow(workers, rates);
    this.samples.push({
      at, marks: this.events(status, isAnother ? null : last, at), ...requests,
      p50: inMilliseconds(status.recent.p50_seconds), p99: inMilliseconds(status.recent.p99_seconds),
      busy: loads.length > 0 ? sum(loads.map(load => load.in_flight)) : null,
      capacity: ready.length > 0 && ready.every(load => known(load.limit)) ? sum(ready.map(load => load.limit)) : null,
      lag: loads.length > 0 ? inMilliseconds(Math.max(...loads.map(load => load.lag_seconds))) : null,
      memory: workers.length > 0 ? sum(workers.map(worker => worker.rss_bytes)) : null,
      memoryLimit: status.generations.at(-1)?.memory_limit_bytes,
    });
    this.samples = this.samples.filter(sample => sample.at >= at - MOST);
    this.answers = [...this.answers, status].slice(-SINCE);
  }

  /** What happened per second since an earlier status: in all workers, and requests in each of them. */
  since(earlier, status) {
    const seconds = earlier ? status.launcher.uptime_seconds - earlier.launcher.uptime_seconds : 0;
    if (seconds <= 0) return { rates: new Map(), requests: {} };
    const past = new Map(workersOf(earlier).map(worker => [worker.pid, worker]));
    const rate = (now, then) => known(now) && known(then) ? Math.max(0, now - then) / seconds : null;
    // Of a worker that is new, everything has happened since.
    const of = value => workersOf(status).map(worker =>
      [worker.pid, rate(value(worker), past.has(worker.pid) ? value(past.get(worker.pid)) : 0)]);
    const requests = {
      served: rate(status.requests.served, earlier.requests.served),
      refused: rate(status.requests.rejected, earlier.requests.rejected),
      cpu: sum(of(worker => worker.cpu_seconds).map(([, value]) => value)),
    };
    return { rates: new Map(of(worker => worker.load?.served)), requests };
  }

  follow(workers, rates) {
    const values = pid => [...this.rates.get(pid) ?? [], rates.get(pid)].filter(known).slice(-30);
    this.rates = new Map(workers.map(({ pid }) => [pid, values(pid)]));
  }

  /** Ends of workers and new generations, in words. */
  events(status, before, at) {
    const happened = [];
    for (const generation of status.generations) {
      const exit = generation.last_exit;
      const name = exit && `${generation.id} ${exit.pid}`;
      if (exit && !this.exits.has(name)) {
        this.exits.set(name, { ...exit, generation: generation.id, at: at - exit.seconds_ago * 1000 });
        if (before) happened.push(`worker ${exit.pid} ${cause(exit)}`);
      }
      if (before && !before.generations.some(one => one.id === generation.id)) {
        happened.push(`generation ${generation.id} started`);
      }
    }
    return happened;
  }
}

const sum = values => values.reduce((total, value) => total + value, 0);
const inMilliseconds = seconds => known(seconds) ? seconds * 1000 : null;

function workersOf(status) {
  return status.generations.flatMap(generation => generation.workers);
}

const CAUSES = {
  oom: 'killed, out of memory', hung: 'hung, killed', rss: 'too large, replaced', age: 'too old, replaced',
  requests: 'replaced after its number of requests', stuck: 'full of stuck requests, replaced',
};

function cause(exit) {
  if (CAUSES[exit.cause]) return CAUSES[exit.cause];
  if (exit.signal) return `killed by ${exit.signal}`;
  return known(exit.status) ? `exit status ${exit.status}` : 'ended, cause unknown';
}

/** The columns of a worker: heading, text, and what else is shown in the cell. */
const COLUMNS = [
  ['Worker', worker => String(worker.pid)],
  ['State', worker => stateOf(worker)],
  ['In flight', ({ load }) => load && (known(load.limit) ? `${load.in_flight} / ${load.limit}` : String(load.in_flight))],
  ['Connections', ({ load }) => load && known(load.connections) ? String(load.connections) : null],
  ['Streams', ({ load }) => load && String(load.streams)],
  ['Requests/s', (worker, rates) => rates.length > 0 ? show.rate(rates.at(-1)) : null],
  ['p50', ({ load }) => duration(load?.recent.p50_seconds)],
  ['p99', ({ load }) => duration(load?.recent.p99_seconds)],
  ['Served', ({ load }) => load && show.count(load.served)],
  ['Refused', ({ load }) => load && show.count(load.rejected)],
  ['Memory', worker => show.bytes(worker.rss_bytes)],
  ['CPU', worker => `${worker.cpu_seconds.toFixed(1)} s`],
  ['Lag', ({ load }) => load && show.milliseconds(load.lag_seconds * 1000)],
  ['Seen', ({ load }) => load && `${show.span(load.heartbeat_seconds_ago)} ago`],
  ['Age', worker => show.span(worker.age_seconds)],
];

const column = name => COLUMNS.findIndex(([heading]) => heading === name);
const duration = seconds => known(seconds) ? show.milliseconds(seconds * 1000) : null;

function stateOf({ load }) {
  if (!load) return 'running';
  const clients = load.clients && load.clients !== load.state ? `, ${load.clients}` : '';
  return `${load.state}${clients}${load.stuck > 0 ? `, ${load.stuck} stuck` : ''}`;
}

function moodOf({ load }) {
  if (!load) return '';
  if (load.clients === 'silent' || load.stuck > 0) return 'bad';
  if (load.clients === 'full') return 'warn';
  return load.state === 'ready' && (load.clients ?? 'dealt') === 'dealt' ? 'good' : '';
}

/** The row of a worker, which is kept as long as there is one. */
class WorkerRow {
  constructor() {
    this.texts = COLUMNS.map(() => html('span', {}));
    this.bar = html('i', {});
    this.meter = html('span', { class: 'bar', 'aria-hidden': 'true' }, this.bar);
    this.spark = sparkline();
    const cells = COLUMNS.map(([heading], index) => html('td', { 'data-label': heading }, this.texts[index]));
    cells[column('In flight')].append(this.meter);
    cells[column('Requests/s')].classList.add('spark');
    cells[column('Requests/s')].prepend(this.spark.svg);
    this.row = html('tr', {}, ...cells);
  }

  update(worker, rates) {
    COLUMNS.forEach(([, text], index) => write(this.texts[index], text(worker, rates) ?? '–'));
    const { load } = worker;
    this.texts[column('State')].className = `badge ${moodOf(worker)}`;
    this.meter.hidden = !known(load?.limit);
    if (known(load?.limit)) this.bar.style.width = `${Math.min(100, load.in_flight / load.limit * 100)}%`;
    this.spark.draw(rates);
  }
}

/** The part of a generation and its workers. */
class GenerationPart {
  constructor() {
    this.title = html('span', {});
    this.state = html('span', { class: 'badge' });
    this.facts = html('p', {});
    this.rows = new Map();
    this.body = html('tbody', {});
    const head = html('thead', {}, html('tr', {}, ...COLUMNS.map(([heading]) => html('th', { scope: 'col' }, heading))));
    this.table = html('table', {}, head, this.body);
    this.part = html('section', { class: 'generation' }, html('h2', {}, this.title, this.state), this.facts, this.table);
  }

  update(generation, rates) {
    write(this.title, `Generation ${generation.id}: ${[generation.server, generation.version].filter(known).join(' ')}`);
    write(this.state, generation.state);
    this.state.className = `badge ${{ serving: 'good', orphaned: 'bad' }[generation.state] ?? 'warn'}`;
    write(this.facts, factsOf(generation).join(' · '));
    this.table.setAttribute('aria-label', `Workers of generation ${generation.id}`);
    reconcile(this.body, this.rows, generation.workers, worker => worker.pid, () => new WorkerRow(), row => row.row,
      (row, worker) => row.update(worker, rates.get(worker.pid) ?? []));
  }
}

function factsOf(generation) {
  const { limit, certificate_expiry_timestamp: expiry } = generation;
  const perWorker = known(limit) ? `at most ${limit} requests per worker` : 'no limit of requests';
  const facts = [
    `${generation.workers.length} of ${generation.workers_planned} workers`,
    generation.limit_adapts ? 'the limit of requests adapts' : perWorker,
    `started ${show.span(generation.age_seconds)} ago`,
  ];
  if (known(generation.memory_limit_bytes)) facts.push(`memory limit ${show.bytes(generation.memory_limit_bytes)}`);
  if (known(expiry)) facts.push(`certificate expires ${new Date(expiry * 1000).toLocaleString()}`);
  facts.push(generation.restarts === 1 ? '1 worker has ended' : `${generation.restarts} workers have ended`);
  return facts;
}

/** Makes the children of an element those of the items, in their order; parts of items that stay are kept. */
function reconcile(parent, parts, items, keyOf, make, elementOf, update) {
  const keys = new Set(items.map(keyOf));
  for (const [key, part] of parts) {
    if (keys.has(key)) continue;
    elementOf(part).remove();
    parts.delete(key);
  }
  items.forEach((item, index) => {
    const key = keyOf(item);
    if (!parts.has(key)) parts.set(key, make());
    const part = parts.get(key);
    if (parent.children[index] !== elementOf(part)) parent.insertBefore(elementOf(part), parent.children[index] ?? null);
    update(part, item);
  });
}

const byId = id => document.getElementById(id);
const generations = new Map();
const seen = new History();
let chosen = null;
let paused = false;
let asking = false;
let timer = null;
let answered = null;

function drawPlots() {
  const { samples } = seen;
  const last = samples.at(-1);
  if (!last) return;
  const sample = samples.find(one => one.at === chosen) ?? last;
  const start = Math.max(last.at - MOST, Math.min(samples[0].at, last.at - LEAST));
  for (const plot of PLOTS) plot.draw(samples, start, last.at, sample);
  const moment = sample === last ? '' : `at ${new Date(sample.at).toLocaleTimeString()} `;
  write(byId('moment'), [moment, ...sample.marks].join(' · '));
}

function drawHead({ launcher, restarts_left: left, failures }) {
  const state = launcher.ready ? 'Ready' : 'Not ready';
  write(byId('version'), launcher.version);
  write(byId('state'), state);
  byId('state').className = `badge ${launcher.ready ? 'good' : 'bad'}`;
  const failed = failures === 1 ? '1 failure of the server' : `${failures} failures of the server`;
  write(byId('summary'), `${launcher.phase} · up ${show.span(launcher.uptime_seconds)} · ${failed}, ${left} more allowed`);
  document.title = `${state} – mcp-launch`;
  const colour = launcher.ready ? '2e9e50' : 'd3372c';
  const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle cx="4.5" cy="4.5" r="4" fill="#${colour}"/></svg>`;
  byId('icon').href = `data:image/svg+xml,${encodeURIComponent(icon)}`;
}

function drawExits(status) {
  const causes = Object.entries(status.worker_exits).filter(([, count]) => count > 0);
  byId('causes').replaceChildren(...causes.map(([name, count]) => html('li', { class: 'badge' }, `${name} × ${count}`)));
  const exits = [...seen.exits.values()].sort((one, other) => other.at - one.at).slice(0, 20);
  byId('exits').replaceChildren(...exits.map(exit => html('li', {},
    html('time', {}, new Date(exit.at).toLocaleTimeString()), html('strong', {}, `worker ${exit.pid}`),
    html('span', {}, cause(exit)), html('span', {}, `generation ${exit.generation}, after ${show.span(exit.age_seconds)}`))));
  byId('none').hidden = causes.length + exits.length > 0;
}

function draw(status) {
  drawHead(status);
  drawPlots();
  reconcile(byId('generations'), generations, [...status.generations].reverse(), one => one.id, () => new GenerationPart(),
    part => part.part, (part, generation) => part.update(generation, seen.rates));
  drawExits(status);
}

async function ask() {
  try {
    const answer = await fetch('status.json', { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const status = await answer.json();
    answered = Date.now();
    seen.add(status, answered);
    draw(status);
    byId('notice').hidden = true;
    document.body.classList.remove('stale');
  } catch {
    const since = answered ? ` since ${new Date(answered).toLocaleTimeString()}` : '';
    write(byId('notice'), `No answer from mcp-launch${since}. Trying again.`);
    byId('notice').hidden = false;
    document.body.classList.add('stale');
  }
}

async function poll() {
  clearTimeout(timer);
  if (asking || paused || document.hidden) return;
  asking = true;
  await ask();
  asking = false;
  timer = setTimeout(poll, PAUSE);
}

/** Chooses the sample that is nearest to a place in a plot, from 0 to 1. */
function choose(place) {
  const { samples } = seen;
  const last = samples.at(-1);
  if (!last) return;
  const start = Math.max(last.at - MOST, Math.min(samples[0].at, last.at - LEAST));
  const time = start + place * (last.at - start);
  const nearer = (one, other) => Math.abs(other.at - time) < Math.abs(one.at - time) ? other : one;
  chosen = samples.reduce(nearer).at;
  drawPlots();
}

function chooseNone() {
  chosen = null;
  drawPlots();
}

function chooseNext(step) {
  const index = seen.samples.findIndex(sample => sample.at === chosen);
  const next = seen.samples[(index < 0 ? seen.samples.length - 1 : index) + step];
  chosen = next ? next.at : chosen;
  drawPlots();
}

for (const plot of PLOTS) {
  byId('plots').append(plot.figure);
  plot.area.addEventListener('pointermove', event => {
    const place = plot.area.getBoundingClientRect();
    choose((event.clientX - place.left) / place.width);
  });
  plot.area.addEventListener('pointerleave', chooseNone);
  plot.area.addEventListener('blur', chooseNone);
  plot.area.addEventListener('keydown', event => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) chooseNext(step);
    if (event.key === 'Escape') chooseNone();
    if (step) event.preventDefault();
  });
}
byId('pause').addEventListener('click', () => {
  paused = !paused;
  byId('pause').setAttribute('aria-pressed', String(paused));
  write(byId('pause'), paused ? 'Continue' : 'Pause');
  poll();
});
document.addEventListener('visibilitychange', poll);
poll();
