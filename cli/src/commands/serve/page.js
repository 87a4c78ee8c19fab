// Shows what the server sends once a second. Everything is text from packets and policies: it is
// set as text, never as markup.
"use strict";

const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let view = null;
let paused = false;
let chosen = null;
// Between the middles of two edges that lead from one to the same other, as far as labels are high.
const LANE = 26;

function element(name, attributes, ...children) {
  const made = name.startsWith("svg:")
    ? document.createElementNS(SVG, name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const count = (number) => number.toLocaleString("en");
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
const wouldBreak = (flow) => flow.verdict === "permit" && flow.would === "deny";
const tone = (flow) => (wouldBreak(flow) ? "doubt" : flow.verdict === "permit" ? "good" : "bad");
const by = (flow) => (flow.rule ? (flow.reason === "rule" ? flow.rule : `${flow.reason} of ${flow.rule}`) : flow.reason);

function shownFlows() {
  const wanted = byId("filter").value.trim().toLowerCase();
  const denials = byId("denials").checked;
  return view.flows.filter((flow) => {
    const words = [flow.from, flow.to, flow.operation, flow.rule, flow.would_rule, flow.reason, flow.hook];
    return (!denials || flow.verdict === "deny" || wouldBreak(flow))
      && (!wanted || words.some((word) => word && word.toLowerCase().includes(wanted)));
  });
}

// Rows stay what they are as long as their key stays: focus and screen readers are not disturbed.
function fill(table, rows) {
  const body = table.tBodies[0];
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  rows.forEach(({ key, cells, open }, at) => {
    let row = known.get(key);
    known.delete(key);
    if (!row) {
      row = body.insertRow();
      row.dataset.key = key;
      cells.forEach(() => row.insertCell());
      if (open) row.cells[cells.length - 1].append(element("button", { type: "button" }));
    }
    cells.forEach(({ text, kind }, column) => {
      const cell = row.cells[column];
      const holder = cell.firstElementChild || cell;
      if (holder.textContent !== text) holder.textContent = text;
      cell.className = kind || "";
    });
    const button = row.querySelector("button");
    if (button) button.onclick = open;
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at]);
  });
  known.forEach((row) => row.remove());
}

const cell = (text, kind) => ({ text: String(text ?? ""), kind });

function keyOf(flow) {
  return [flow.from, flow.to, flow.operation, flow.hook, flow.verdict, flow.would, flow.reason, flow.rule, flow.would_rule].join("\u0001");
}

function showFlows(flows) {
  fill(byId("flows"), flows.map((flow) => ({
    key: keyOf(flow),
    open: () => openFlow(flow),
    cells: [
      cell(count(flow.per_s), "number"), cell(count(flow.events), "number"),
      cell(flow.verdict, flow.verdict === "permit" ? "good" : "bad"),
      cell(flow.would ?? "", "doubt"), cell(flow.hook), cell(flow.from, flow.claimed ? "claimed" : ""), cell(flow.to),
      cell(flow.operation), cell(by(flow)),
    ],
  })));
}

function showRules() {
  fill(byId("rules"), view.rules.map((rule) => ({
    key: `${view.image} ${rule.number}`,
    open: () => openRule(view.image, rule.number, `${rule.action} ${rule.rule}`),
    cells: [
      cell(count(rule.per_s), "number"), cell(count(rule.packets), "number"),
      cell(count(rule.would), "number"), cell(rule.action), cell(rule.rule), cell(rule.place),
    ],
  })));
  fill(byId("reasons"), view.denials.map((one) => ({
    key: `${one.hook} ${one.reason}`,
    cells: [
      cell(count(one.per_s), "number"), cell(count(one.packets), "number"),
      cell(one.hook), cell(`${one.reason}: ${one.because}`),
    ],
  })));
}

// Senders to the left, receivers to the right; who is both stands in both columns.
function showMap(flows) {
  const map = byId("map");
  const edges = new Map();
  for (const flow of flows) {
    // What is permitted is told apart by scopes alone, what is not by what denies it as well.
    const cause = tone(flow) === "good" ? "" : wouldBreak(flow) ? flow.would_rule : by(flow);
    const key = [flow.from, flow.to, tone(flow), cause].join("\u0001");
    const edge = edges.get(key) || { key, cause, from: flow.from, to: flow.to, tone: tone(flow), per_s: 0, events: 0, flows: [] };
    edge.per_s += flow.per_s;
    edge.events += flow.events;
    edge.flows.push(flow);
    edges.set(key, edge);
  }
  const list = [...edges.values()].sort((a, b) => b.events - a.events).slice(0, 40);
  const senders = [...new Set(list.map((edge) => edge.from))].sort();
  const receivers = [...new Set(list.map((edge) => edge.to))].sort();
  const claims = new Set(flows.filter((flow) => flow.claimed).map((flow) => flow.from));
  const pairOf = (edge) => `${edge.from}\u0001${edge.to}`;
  const lanes = new Map();
  for (const edge of list) lanes.set(pairOf(edge), (lanes.get(pairOf(edge)) || 0) + 1);
  // Edges between the same two run beside each other: rows are as high as the most of them want.
  const most = Math.max(1, ...lanes.values());
  const rows = Math.max(senders.length, receivers.length, 1);
  const width = map.clientWidth || 700;
  const height = Math.max(352, rows * Math.max(64, most * LANE + 24) + 24);
  const box = Math.min(200, width * 0.28);
  const y = (list, name) => ((list.indexOf(name) + 0.5) * height) / list.length;
  const focused = document.activeElement?.dataset?.edge;
  map.style.height = `${height}px`;
  map.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const drawn = [arrow()];
  const room = { width, height, taken: [] };
  const drawnOf = new Map();
  for (const edge of list) {
    const pair = pairOf(edge);
    const nth = drawnOf.get(pair) || 0;
    drawnOf.set(pair, nth + 1);
    const lane = nth - (lanes.get(pair) - 1) / 2;
    drawn.push(drawEdge(edge, lane, room, [16 + box, y(senders, edge.from)], [width - 16 - box, y(receivers, edge.to)]));
  }
  senders.forEach((name) => drawn.push(drawNode(name, 16, y(senders, name), box, claims.has(name))));
  receivers.forEach((name) => drawn.push(drawNode(name, width - 16 - box, y(receivers, name), box)));
  if (!list.length) drawn.push(element("svg:text", { x: 16, y: 32 }, "no flow that fits has been seen yet"));
  map.replaceChildren(...drawn);
  if (focused) map.querySelector(`[data-edge="${CSS.escape(focused)}"]`)?.focus();
}

function arrow() {
  const marker = element("svg:marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" },
    element("svg:path", { d: "M0 0 L8 4 L0 8 z" }));
  return element("svg:defs", {}, marker);
}

// Names are cut in front, where they are alike. What says that one is a claim only stays.
function cut(name, letters, claimed) {
  const start = claimed ? "claims " : "";
  if (name.length <= letters) return name;
  return `${start}…${name.slice(start.length).slice(1 + start.length - letters)}`;
}

function drawNode(name, x, middle, box, claimed) {
  const short = cut(name, Math.floor(box / 7.5), claimed);
  return element("svg:g", { class: claimed ? "node claimed" : "node" },
    element("svg:title", {}, claimed ? `${name}: nobody has verified that` : name),
    element("svg:rect", { x, y: middle - 15, width: box, height: 30, rx: claimed ? 0 : 5 }),
    element("svg:text", { x: x + box / 2, y: middle + 4, "text-anchor": "middle" }, short));
}

// Where a label is in nobody's way: on its edge, near the middle if it can be.
function place(text, at, room) {
  const wide = text.length * 6.8;
  let best = null;
  for (const t of [0.5, 0.35, 0.65, 0.25, 0.75]) {
    const [x, y] = at(t);
    const inside = (value, margin, end) => Math.min(Math.max(value, margin), end - margin);
    const label = { x: inside(x, wide / 2, room.width), y: inside(y - 4, 16, room.height), wide };
    const meets = (other) => Math.abs(other.y - label.y) < 16 && Math.abs(other.x - label.x) < (other.wide + wide) / 2;
    const met = room.taken.filter(meets).length;
    if (!best || met < best.met) best = { ...label, met };
    if (!met) break;
  }
  room.taken.push(best);
  return best;
}

function drawEdge(edge, lane, room, [x1, y1], [x2, y2]) {
  // Ends stay within their boxes; in between there is room for a label on each.
  const apart = lane * Math.min(6, 24 / (Math.abs(lane) * 2 + 1));
  const [a, b] = [y1 + apart, y2 + apart];
  const middle = (x1 + x2) / 2;
  const bent = (end) => Math.min(Math.max(end + lane * LANE, 8), room.height - 8);
  const [c, d] = [bent(a), bent(b)];
  const path = `M${x1} ${a} C${middle} ${c} ${middle} ${d} ${x2} ${b}`;
  const on = (t) => (p0, p1, p2, p3) => (1 - t) ** 3 * p0 + 3 * (1 - t) ** 2 * t * p1 + 3 * (1 - t) * t ** 2 * p2 + t ** 3 * p3;
  const at = (t) => [on(t)(x1, middle, middle, x2), on(t)(a, c, d, b)];
  const operations = [...new Set(edge.flows.map((flow) => flow.operation || flow.reason))];
  const named = operations.length > 2 ? `${operations[0]} and ${operations.length - 1} more` : operations.join(", ");
  const what = edge.cause && edge.cause !== named ? `${named}: ${edge.cause}` : named;
  const word = { good: "permitted", bad: "denied", doubt: "permitted, would be denied" }[edge.tone];
  const label = `${edge.from} to ${edge.to}: ${word}${edge.cause ? ` by ${edge.cause}` : ""}, ${operations.join(", ")}, ${plural(edge.events, "event")}, ${count(edge.per_s)} a second`;
  const told = `${what} · ${edge.per_s ? `${count(edge.per_s)}/s` : count(edge.events)}`;
  const placed = place(told, at, room);
  const made = element("svg:g", {
    class: `edge ${edge.tone}`, tabindex: 0, role: "button", "aria-label": label,
    "data-edge": edge.key,
  },
    element("svg:title", {}, label),
    element("svg:path", { class: "reach", d: path }),
    element("svg:path", { d: path, "stroke-width": Math.min(6, 1.5 + Math.log10(1 + edge.per_s)), "marker-end": "url(#arrow)" }),
    element("svg:text", { x: placed.x, y: placed.y, "text-anchor": "middle" }, told));
  const open = () => openFlow(edge.flows[0]);
  made.addEventListener("click", open);
  made.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      open();
    }
  });
  return made;
}

function openFlow(flow) {
  const what = [
    `${flow.verdict} at ${flow.hook}: ${flow.from} to ${flow.to}`,
    flow.operation ? ` for ${flow.operation}` : "",
    flow.rule ? `, by ${by(flow)} (${flow.place ?? "place unknown"})` : `, because ${flow.because}`,
    flow.would ? `. ${flow.would_rule} only observes; enforced, it would ${flow.would} (${flow.would_place ?? "place unknown"})` : "",
    `. Last packet: ${flow.last}.`,
  ].join("");
  const rule = flow.would ? flow.would_number : flow.rule_number;
  openRule(flow.image, rule, what);
}

async function openRule(image, rule, what) {
  const asked = (chosen = {});
  byId("why").textContent = what;
  const source = byId("source");
  source.hidden = true;
  byId("detail").focus({ preventScroll: false });
  if (!image || rule === null || rule === undefined) return;
  try {
    const answer = await fetch(`/source?image=${image}&rule=${rule}`);
    if (chosen !== asked) return;
    if (!answer.ok) {
      byId("why").textContent = `${what} No source is shown: ${await answer.text()}.`;
      return;
    }
    const found = await answer.json();
    if (chosen !== asked) return;
    source.replaceChildren(element("i", {}, `${found.file}\n`), ...found.lines.flatMap((text, at) => [
      element("i", {}, `${String(found.line + at).padStart(5)} `), `${text}\n`,
    ]));
    source.hidden = false;
  } catch {
    byId("why").textContent = `${what} The server does not answer.`;
  }
}

function say(text, trouble) {
  const state = byId("state");
  // Said again every second, it would be read out every second.
  if (state.textContent !== text) state.textContent = text;
  state.className = trouble ? "trouble" : "";
}

function show() {
  if (!view) return;
  byId("policy").textContent = view.generation ? `${view.policy}, generation ${view.generation}` : "";
  byId("permitted").textContent = `${count(view.packets.permitted_per_s)}/s`;
  byId("denied").textContent = `${count(view.packets.denied_per_s)}/s`;
  byId("would").textContent = `${count(view.packets.would_per_s)}/s`;
  const lost = view.events.lost_rate + view.events.lost_full;
  byId("events").textContent = `${plural(view.events.read, "event")} read${lost ? `, ${count(lost)} lost: flows are a sample, packets and rules are exact` : ""}`
    + (view.others ? `, ${count(view.others)} of flows that are not listed` : "")
    + (view.permits || !view.generation ? "" : "; permitted packets are not reported");
  if (!view.generation) say("no policy is in force", true);
  else if (view.pending) say(`a trial: generation ${view.pending.before} returns unless it is confirmed`, true);
  else say(paused ? "paused" : "live", false);
  const flows = shownFlows();
  showMap(flows);
  showFlows(flows);
  showRules();
}

byId("choose").addEventListener("submit", (event) => event.preventDefault());
byId("filter").addEventListener("input", show);
byId("denials").addEventListener("change", show);
byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  show();
});
addEventListener("resize", show);

const views = new EventSource("/views");
views.onmessage = (event) => {
  if (paused) return;
  view = JSON.parse(event.data);
  show();
};
views.onerror = () => say("the server does not answer; trying again", true);
