// The review page. Whatever comes from the data is set as textContent or value: it is never read as HTML.
"use strict";

const MANY = 20;
const LOOKS = { keep: "kept", replace: "replaced", drop: "dropped", failed: "failed" };
const at = (id) => document.getElementById(id);
const state = { offset: 0, total: 0, version: null, rows: [], current: 0, undo: 0, previewed: null, asks: 0 };

async function ask(path, body) {
  const asked = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer, found;
  try {
    answer = await fetch(path, asked);
    found = await answer.json();
  } catch {
    throw new Error("the server does not answer: is capfilt review still running?");
  }
  if (!answer.ok) throw new Error(found.error);
  if ("reviewed" in found) showState(found);
  return found;
}

function say(text, wrong = false) {
  at("say").textContent = text;
  at("say").classList.toggle("wrong", wrong);
  clearTimeout(say.timer);
  if (!wrong) say.timer = setTimeout(() => (at("say").textContent = ""), 4000);
}

// Runs what a person asked for; says what went wrong.
function doing(work) {
  return async (...of) => {
    try {
      await work(...of);
    } catch (error) {
      say(error.message, true);
    }
  };
}

function showState(found) {
  state.undo = found.undo;
  at("undo").disabled = !found.undo;
  at("stale").hidden = !found.stale;
  at("tally").textContent = `${state.tally ?? ""}${found.reviewed.toLocaleString("en")} reviewed`;
}

function filters() {
  const found = Object.fromEntries(new FormData(at("filters")));
  if (found.source === "*") delete found.source;
  else found.source = found.source.slice(1);
  return found;
}

async function load(offset, current = 0, version = null) {
  const mine = ++state.asks;
  const query = new URLSearchParams({ ...filters(), offset, many: MANY });
  if (version !== null) query.set("version", version);
  const found = await ask(`/api/rows?${query}`);
  if (mine !== state.asks) return; // another question was asked meanwhile
  Object.assign(state, { offset, total: found.total, version: found.version, rows: found.rows });
  at("rows").replaceChildren(...found.rows.map(drawn));
  const last = Math.min(offset + found.rows.length, found.total);
  at("where").textContent = found.total ? `Rows ${(offset + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${found.total.toLocaleString("en")}` : "No such rows";
  for (const id of ["before", "before-2"]) at(id).disabled = offset === 0;
  for (const id of ["after", "after-2"]) at(id).disabled = last >= found.total;
  select(current < 0 ? found.rows.length - 1 : current, false);
}

function drawn(row) {
  const card = at("row").content.firstElementChild.cloneNode(true);
  card.classList.add(LOOKS[row.decision]);
  card.dataset.id = row.id;
  const [frame, none] = [card.querySelector(".picture"), card.querySelector(".noimage")];
  const missing = (why) => {
    frame.hidden = true;
    none.hidden = false;
    none.textContent = why;
  };
  if (row.decision === "failed") missing("could not be read");
  else {
    const image = frame.querySelector("img");
    image.addEventListener("error", () => missing("no image"));
    image.src = `/image/${row.id}`;
    frame.addEventListener("click", () => (image.src = `/image/${row.id}${card.classList.toggle("large") ? "?large=1" : ""}`));
  }
  for (const side of ["web", "synthetic"]) showText(card, row, side);
  const standing = row.said && row.said.verdict !== "reject" ? row.said.text : row.text;
  const person = card.querySelector(".person");
  person.hidden = standing === null || standing === row.web_text || standing === row.synthetic_text;
  person.querySelector("bdi").textContent = standing ?? "";
  const word = card.querySelector(".why .word");
  word.textContent = LOOKS[row.decision];
  word.classList.add(LOOKS[row.decision]);
  card.querySelector(".why bdi").textContent = row.reason;
  card.querySelector(".where bdi").textContent = row.source ? `${row.source} · ${row.key}` : row.key;
  const verdict = card.querySelector(".verdict");
  verdict.hidden = !row.said;
  verdict.textContent = row.said ? spoken(row.said) : "";
  for (const button of card.querySelectorAll("[data-act]")) {
    button.disabled = unusable(row) || (`${button.dataset.act}_text` in row && row[`${button.dataset.act}_text`] === null);
    button.addEventListener("click", () => act(row.id, button.dataset.act));
  }
  card.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    judge(row.id, { verdict: "edit", which: null, text: card.querySelector("textarea").value });
  });
  card.querySelector("textarea").addEventListener("keydown", (event) => {
    if (event.key === "Escape") leave(card);
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) card.querySelector("form").requestSubmit();
  });
  card.querySelector(".leave").addEventListener("click", () => leave(card));
  card.addEventListener("focusin", () => select(state.rows.findIndex((one) => one.id === row.id), false));
  return card;
}

const unusable = (row) => row.decision === "failed" && !row.reason.startsWith("not_scored");
const spoken = (said) => ({ accept: `You accepted the ${said.which} text.`, reject: "You rejected it.", edit: "You wrote a text." })[said.verdict];
const number = (value) => (value === null ? "–" : (Math.floor(value * 1000 + 0.001) / 1000).toFixed(3)); // cut, as the reasons have it

function showText(card, row, side) {
  const box = card.querySelector(`[data-side="${side}"]`);
  const text = row[`${side}_text`];
  const said = row.said;
  const stands = text !== null && (said ? said.verdict !== "reject" && said.text === text : row.texts.includes(text));
  box.classList.add(text === null ? "none" : stands ? "stays" : "goes");
  box.querySelector(".tag b").textContent = text === null ? "no" : stands ? "✓" : "✗";
  box.querySelector("bdi").textContent = text ?? "";
  if (text === null) return;
  box.querySelector(".score").textContent = number(row[`score_${side}`]);
  box.querySelector(".heads").textContent = `ITM ${number(row[`itm_${side}`])} · ITC ${number(row[`itc_${side}`])}`;
}

function leave(card) {
  card.querySelector("form").hidden = true;
  card.focus();
}

function select(place, focus = true) {
  const cards = [...at("rows").children];
  state.current = Math.max(0, Math.min(place, cards.length - 1));
  cards.forEach((card, i) => {
    card.classList.toggle("current", i === state.current);
    if (i === state.current) card.setAttribute("aria-current", "true");
    else card.removeAttribute("aria-current");
  });
  if (focus && cards.length) {
    cards[state.current].focus({ preventScroll: true });
    cards[state.current].scrollIntoView({ block: "nearest" });
  }
}

async function move(by) {
  const next = state.current + by;
  if (next >= state.rows.length && state.offset + state.rows.length < state.total) {
    await load(state.offset + MANY, 0, state.version);
  } else if (next < 0 && state.offset > 0) await load(Math.max(0, state.offset - MANY), -1, state.version);
  else return select(next);
  select(state.current);
}

// What `accept` means where the person does not say which text: the one that stands, else the better one.
function better(row) {
  if (row.text !== null && row.text === row.synthetic_text && row.text !== row.web_text) return "synthetic";
  if (row.text !== null && row.text === row.web_text) return "web";
  if (row.web_text === null) return "synthetic";
  return (row.score_synthetic ?? -1) > (row.score_web ?? -1) ? "synthetic" : "web";
}

const act = doing(async (id, what) => {
  const place = state.rows.findIndex((row) => row.id === id);
  const row = state.rows[place];
  if (!row) return;
  if (unusable(row)) throw new Error("this row could not be read: without an image there is no pair to judge");
  if (what === "edit") {
    const form = at("rows").children[place].querySelector("form");
    form.hidden = false;
    const field = form.querySelector("textarea");
    field.value = (row.said && row.said.text) ?? row.text ?? row[`${better(row)}_text`] ?? "";
    field.focus();
    field.select();
  } else if (what === "reject") await judge(id, { verdict: "reject", which: null, text: null });
  else await judge(id, { verdict: "accept", which: what === "accept" ? better(row) : what, text: null });
});

const judge = doing(async (id, verdict) => {
  const found = await ask("/api/review", { id, ...verdict });
  renew([found.row]);
  say(`${spoken(found.row.said)} Undo: u`);
  const place = state.rows.findIndex((row) => row.id === id);
  select(place, false);
  await move(1);
});

function renew(rows) {
  for (const row of rows) {
    const place = state.rows.findIndex((one) => one.id === row.id);
    if (place < 0) continue;
    state.rows[place] = row;
    at("rows").children[place].replaceWith(drawn(row));
  }
}

const undo = doing(async () => {
  const found = await ask("/api/undo", {});
  if (!found.undone) return say("There is nothing to undo here.");
  renew(found.rows);
  const place = state.rows.findIndex((row) => row.id === found.rows[0]?.id);
  if (place >= 0) select(place);
  say(found.undone === 1 ? "Taken back." : `Taken back in ${found.undone.toLocaleString("en")} rows.`);
});

const replaceAll = doing(async (apply) => {
  const form = Object.fromEntries(new FormData(at("replace")));
  const body = { asked: filters(), find: form.find, put: form.put, which: form.which, case: form.case === "on", apply };
  const found = await ask("/api/replace", body);
  const rows = `${found.changed.toLocaleString("en")} ${found.changed === 1 ? "row" : "rows"}`;
  at("replaced").textContent = `${found.applied ? "Replaced in" : "Would change"} ${rows}${found.empty ? `; ${found.empty.toLocaleString("en")} would be left empty and stay as they are` : ""}.`;
  at("examples").replaceChildren(...(apply ? [] : found.examples).map(example));
  at("apply").disabled = apply || !found.changed;
  state.previewed = JSON.stringify({ ...body, apply: true });
  if (apply) await load(state.offset, state.current, state.version);
});

function example({ before, after }) {
  const line = document.createElement("li");
  const [old, made] = [document.createElement("del"), document.createElement("ins")];
  old.textContent = before;
  made.textContent = after;
  line.append(old, " ", made);
  return line;
}

const KEYS = {
  j: doing(() => move(1)),
  k: doing(() => move(-1)),
  u: undo,
  a: () => act(state.rows[state.current]?.id, "accept"),
  w: () => act(state.rows[state.current]?.id, "web"),
  s: () => act(state.rows[state.current]?.id, "synthetic"),
  r: () => act(state.rows[state.current]?.id, "reject"),
  e: () => act(state.rows[state.current]?.id, "edit"),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  if (!(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});

function option(value, text) {
  const found = document.createElement("option");
  found.value = value;
  found.textContent = text.length > 60 ? `${text.slice(0, 60)}…` : text;
  return found;
}

function setUp(about) {
  at("name").textContent = about.name;
  document.title = `Review ${about.name} · capfilt`;
  const counts = Object.entries(about.decisions).map(([name, rows]) => `${rows.toLocaleString("en")} ${LOOKS[name]}`);
  state.tally = `${about.rows.toLocaleString("en")} rows: ${counts.join(", ")}. `;
  showState(about);
  const fields = at("filters").elements;
  for (const [name, rows] of Object.entries(about.decisions)) fields.decision.append(option(name, `${LOOKS[name]} (${rows.toLocaleString("en")})`));
  for (const [name, words, rows] of about.kinds) fields.kind.append(option(name, `${words} (${rows.toLocaleString("en")})`));
  for (const [name, rows] of about.sources) fields.source.append(option(`=${name}`, `${name || "(none)"} (${rows.toLocaleString("en")})`));
  const box = document.querySelector(".bars");
  const { bars } = about;
  for (const slider of box.querySelectorAll("[data-bar]")) {
    slider.max = bars.steps;
    slider.value = Math.round(((bars[slider.dataset.bar] ?? 0.5) - bars.low) / bars.step);
  }
  box.dataset.bars = JSON.stringify(bars);
  livenBars(box);
}

const anew = doing(() => load(0));
let waiting = 0;
at("filters").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(anew, 250);
});
at("filters").addEventListener("reset", () => setTimeout(anew));
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("replace").addEventListener("submit", (event) => {
  event.preventDefault();
  replaceAll(false);
});
at("replace").addEventListener("input", () => (at("apply").disabled = true));
at("filters").addEventListener("input", () => (at("apply").disabled = true));
at("apply").addEventListener("click", () => replaceAll(true));
at("undo").addEventListener("click", undo);
for (const id of ["before", "before-2"]) at(id).addEventListener("click", doing(() => load(Math.max(0, state.offset - MANY), 0, state.version)));
for (const id of ["after", "after-2"]) at(id).addEventListener("click", doing(() => load(state.offset + MANY, 0, state.version)));
if (matchMedia("(max-width: 720px)").matches) at("filters-box").open = false;
doing(async () => {
  setUp(await ask("/api/about"));
  await load(0);
})();
