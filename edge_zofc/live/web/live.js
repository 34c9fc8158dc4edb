// The page: shows what the server says (events), and tells it what a person does (POST). Names and sentences come from
// people and cameras: they reach the page as text alone.

const RENEW_MS = 2000, FRAME_MS = 200, MESSAGE_MS = 6000, FIRST_PICTURES = 60, FEW_CHIPS = 12;
const $ = id => document.getElementById(id);

let view = null, known = null, doing = null;
let pictures = [];                 // [serial, name, part, burst], newest last
let fresh = [];                    // names that were added here and not shown yet
const order = [];                  // names as they came: a row whose button is held must not move
let chosenThing = null, chosen = new Set(), lastChosen = null, shown = FIRST_PICTURES;
let allChips = false, messageUntil = 0;

// ---- asking the server

async function post(path, body) {
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json", "x-edge-zofc": "1" },
      body: JSON.stringify(body),
    });
    const found = await answer.json();
    const said = found.said ?? (found.task ? `Kept as ${found.task}.` : "");
    if (answer.ok) { if (said) say(said, false); return true; }
    say(found.error, true);
  } catch { say("The device does not answer.", true); }
  return false;
}

function say(sentence, bad) {
  $("note").textContent = sentence;
  $("note").classList.toggle("bad", bad);
  messageUntil = Date.now() + MESSAGE_MS;
}

// ---- small helpers

function set(element, text) { if (element.textContent !== text) element.textContent = text; }
function count(n, what) { return `${n} ${what}${n === 1 ? "" : "s"}`; }
function make(tag, kind, text) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  if (text !== undefined) element.textContent = text;
  return element;
}

// One element a key, kept while its key is there: a button that is held down must not be made anew.
function keyed(parent, keys, create, update) {
  const old = parent.keyed ??= new Map();
  for (const [key, element] of old) if (!keys.includes(key)) { element.remove(); old.delete(key); }
  keys.forEach((key, index) => {
    if (!old.has(key)) old.set(key, create(key));
    const element = old.get(key);
    if (parent.children[index] !== element) parent.insertBefore(element, parent.children[index] ?? null);
    update(element, key);
  });
}

// ---- the answer

function showView() {
  const answer = $("answer"), recording = view.recording;
  const unknown = view.caption === "", none = !known?.classes.length;
  set(answer, none ? "Nothing is taught yet." : !view.picture ? "No picture yet." : view.caption === null ? "Looking …"
    : unknown ? "I do not know this. What is it?" : view.caption);
  answer.dataset.picture = view.picture;
  answer.className = none || view.caption === null ? "waiting" : unknown ? "unknown" : "";
  const best = view.guesses[0];
  set($("like"), none || !best ? "" : unknown
    ? `Most like ${best.class_name}, but only ${best.likeness.toFixed(2)}; ${view.limit.toFixed(2)} is needed.`
    : known.classes.length === 1 ? "It knows one thing alone, and everything looks like it: show a second one."
    : "Likeness to what it was shown; the line is what it takes to be named.");
  keyed($("guesses"), none ? [] : view.guesses.map(guess => guess.class_name), () => guessRow(), updateGuess);
  const stage = $("stage"), badge = $("badge");
  stage.classList.toggle("recording", recording !== null);
  stage.classList.toggle("test", view.for_test);
  badge.hidden = recording === null;
  set(badge, recording === null ? "" : `${view.for_test ? "Kept back as a test" : "Learning"}: ${recording}, ${count(view.kept, "picture")}`);
  if (Date.now() > messageUntil) { set($("note"), view.note); $("note").classList.remove("bad"); }
  if (view.picture) $("blank").hidden = true;
  showChips();
  set($("took"), view.seconds ? `${Math.round(1000 * view.seconds)} ms from picture to answer` : "not measured yet");
}

function guessRow() {
  const row = make("li"), svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 6");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const [tag, kind] of [["rect", "bar"], ["line", "limit"]]) {
    const part = document.createElementNS(svg.namespaceURI, tag);
    part.setAttribute("class", kind);
    part.setAttribute(tag === "rect" ? "height" : "y2", "6");
    svg.append(part);
  }
  row.append(make("span", "name"), svg, make("span", "value"));
  return row;
}

function updateGuess(row, name) {
  const guess = view.guesses.find(found => found.class_name === name);
  const [bar, limit] = row.querySelector("svg").children;
  set(row.querySelector(".name"), name);
  set(row.querySelector(".value"), guess.likeness.toFixed(2));
  row.classList.toggle("best", name === view.caption);
  bar.setAttribute("width", String(100 * Math.min(1, Math.max(0, guess.likeness))));
  for (const side of ["x1", "x2"]) limit.setAttribute(side, String(100 * Math.min(1, Math.max(0, view.limit))));
}

function showChips() {
  const names = things().map(thing => thing.name).filter(name => name !== view.caption);
  const few = allChips ? names : names.slice(0, FEW_CHIPS);
  $("correct").hidden = !names.length || !view.picture || view.recording !== null;
  set($("correct-title"), view.caption === "" ? "One click on what it is, or a new name for it:" : "Not right? One click on what it is:");
  const keys = few.map(name => `=${name}`).concat(names.length > few.length ? ["more"] : []);
  keyed($("chips"), keys, key => {
    const chip = make("button", "", key === "more" ? "All things …" : key.slice(1));
    chip.type = "button";
    chip.onclick = () => key === "more" ? (allChips = true, showChips()) : post("/api/correct", { name: key.slice(1), picture: view.picture });
    return chip;
  }, () => {});
}

// ---- the things

function things() {
  const classes = known?.classes ?? [];
  fresh = fresh.filter(name => !classes.some(one => one.name === name));
  const none = { learnt: 0, taught: 0, kept_back: 0, kept_back_right: 0, looks_like: null };
  const all = classes.concat(fresh.map(name => ({ name, ...none })));
  for (const one of all) if (!order.includes(one.name)) order.push(one.name);
  return all.sort((one, other) => order.indexOf(one.name) - order.indexOf(other.name));
}

function showThings() {
  if (!known) return;
  const all = things(), names = all.map(thing => thing.name);
  if (!names.includes(chosenThing)) chosenThing = names.at(-1) ?? null;
  $("empty").hidden = names.length > 0;
  $("hint").hidden = !names.length;
  keyed($("classes"), names, thingRow, (row, name) => updateThing(row, all[names.indexOf(name)]));
  for (const select of [$("only"), $("move")]) {
    const options = known.classes.map(one => one.name);
    const before = select.value;
    while (select.options.length > options.length + 1) select.remove(select.options.length - 1);
    options.forEach((name, index) => {
      const option = select.options[index + 1] ?? select.appendChild(make("option"));
      if (option.value !== name) { option.value = name; option.textContent = name; }
    });
    if (select.value !== before) select.value = options.includes(before) ? before : "";
  }
  const kept = known.kept_back;
  set($("kept-back"), kept.total ? `${kept.right} of ${kept.total} named right` : "none yet: show a thing four times");
}

function thingRow(name) {
  const row = $("class-row").content.firstElementChild.cloneNode(true);
  const hold = row.querySelector(".hold"), dots = row.querySelector(".dots"), edit = row.querySelector(".edit");
  const input = row.querySelector(".new-name");
  set(row.querySelector(".name"), name);
  hold.setAttribute("aria-label", `Hold to show ${name}`);
  dots.setAttribute("aria-label", `Rename or forget ${name}`);
  input.setAttribute("aria-label", `New name of ${name}`);
  row.querySelector(".choose").onclick = () => { chosenThing = name; showThings(); };
  holdable(hold, name);
  dots.onclick = () => {
    edit.hidden = !edit.hidden;
    dots.setAttribute("aria-expanded", String(!edit.hidden));
    if (!edit.hidden) { input.value = name; input.select(); }
  };
  edit.onsubmit = event => {
    event.preventDefault();
    const to = tidy(input.value);
    if (fresh.includes(name)) { fresh[fresh.indexOf(name)] = to; chosenThing = to; showThings(); }
    else if (to !== name) post("/api/rename", { old: name, new: to }).then(ok => { if (ok) chosenThing = to; });
  };
  row.querySelector(".forget-class").onclick = () => {
    if (fresh.includes(name)) { fresh = fresh.filter(one => one !== name); showThings(); }
    else post("/api/forget-class", { name });
  };
  return row;
}

function updateThing(row, thing) {
  const parts = [];
  if (thing.learnt) parts.push(`${thing.learnt} learnt`);
  if (thing.taught || !thing.learnt) parts.push(thing.taught ? `${thing.taught} to learn from` : "not shown yet");
  if (thing.kept_back) parts.push(`${thing.kept_back_right} of ${thing.kept_back} kept back right`);
  set(row.querySelector(".counts"), parts.join(" · "));
  const alike = row.querySelector(".alike");
  alike.hidden = !thing.looks_like;
  set(alike, thing.looks_like ? `Looks like ${thing.looks_like}: show both from more sides.` : "");
  row.classList.toggle("current", thing.name === chosenThing);
  row.querySelector(".choose").setAttribute("aria-pressed", String(thing.name === chosenThing));
}

function tidy(name) { return name.normalize("NFC").trim(); }

$("add").onsubmit = event => {
  event.preventDefault();
  const name = tidy($("name").value);
  if (!name) return;
  if (!things().some(thing => thing.name === name)) fresh.push(name);
  chosenThing = name;
  $("name").value = "";
  showThings();
  $("classes").keyed.get(name).querySelector(".hold").focus();
};

// ---- hold to show: mouse, touch and keys

let held = null, renewal = 0, buttonHeld = null;

function down(name, button) {
  if (held !== null) return;
  held = name; buttonHeld = button; chosenThing = name;
  button?.classList.add("down");
  showThings();
  const tell = () => post("/api/record", { name, on: true }).then(ok => { if (!ok && held === name) up(); });
  tell();
  renewal = setInterval(tell, RENEW_MS);
}

function up() {
  if (held === null) return;
  clearInterval(renewal);
  post("/api/record", { name: held, on: false });
  buttonHeld?.classList.remove("down");
  held = buttonHeld = null;
}

function holdable(button, name) {
  button.onpointerdown = event => { if (event.button === 0) { button.setPointerCapture(event.pointerId); down(name, button); } };
  // Another button loses the focus as this one is pressed, which is no end of the press.
  const upIfHeld = () => { if (buttonHeld === button) up(); };
  button.onpointerup = button.onpointercancel = button.onlostpointercapture = button.onblur = upIfHeld;
  button.oncontextmenu = event => event.preventDefault();
  button.onkeydown = event => {
    if (event.key === " " || event.key === "Enter") { event.preventDefault(); if (!event.repeat) down(name, button); }
  };
  button.onkeyup = event => { if (event.key === " " || event.key === "Enter") { event.preventDefault(); up(); } };
}

document.addEventListener("keydown", event => {
  if (event.key !== " " || event.target.closest("button, input, select, a, [contenteditable]")) return;
  event.preventDefault();
  if (!event.repeat && chosenThing !== null) down(chosenThing, $("classes").keyed?.get(chosenThing)?.querySelector(".hold"));
});
document.addEventListener("keyup", event => { if (event.key === " " && !event.target.closest("button, input")) up(); });
addEventListener("blur", up);
document.addEventListener("visibilitychange", () => { if (document.hidden) up(); });

// ---- the lesson's pictures

let fetching = false, stale = false;

async function fetchPictures() {
  if (fetching) { stale = true; return; }
  fetching = true;
  do {
    stale = false;
    try {
      const answer = await fetch("/api/pictures");
      if (answer.ok) pictures = await answer.json();
    } catch { /* the banner tells it */ }
    showPictures();
    await new Promise(done => setTimeout(done, 500));
  } while (stale);
  fetching = false;
}

function listed() {
  const only = $("only").value;
  return pictures.filter(([, name]) => !only || name === only).reverse();
}

function showPictures() {
  const all = listed(), some = all.slice(0, shown), there = new Set(pictures.map(([serial]) => serial));
  chosen = new Set([...chosen].filter(serial => there.has(serial)));
  set($("count"), pictures.length ? count(pictures.length, "picture") : "");
  $("no-pictures").hidden = pictures.length > 0;
  $("more").hidden = all.length <= some.length;
  $("chosen").hidden = !chosen.size;
  set($("chosen-count"), `${chosen.size} chosen`);
  const bySerial = new Map(some.map(picture => [picture[0], picture]));
  keyed($("pictures"), [...bySerial.keys()], thumbnail, (button, serial) => {
    const [, name, part] = bySerial.get(serial), label = button.lastElementChild;
    set(label.firstElementChild, name);
    set(label.lastElementChild, part === "test" ? "test" : "");
    button.setAttribute("aria-pressed", String(chosen.has(serial)));
    button.setAttribute("aria-label", `${name}, picture ${serial}${part === "test" ? ", kept back" : ""}`);
  });
}

function thumbnail(serial) {
  const button = make("button"), image = make("img");
  button.type = "button";
  image.loading = "lazy"; image.alt = ""; image.width = image.height = 96;
  image.src = `/picture/${serial}.jpg`;
  const label = make("span", "label");
  label.append(make("span", "name"), make("span", "part"));
  button.append(image, label);
  button.onclick = event => {
    const order = listed().map(([found]) => found), from = order.indexOf(lastChosen), to = order.indexOf(serial);
    if (event.shiftKey && from >= 0) order.slice(Math.min(from, to), Math.max(from, to) + 1).forEach(one => chosen.add(one));
    else if (!chosen.delete(serial)) chosen.add(serial);
    lastChosen = serial;
    showPictures();
  };
  return button;
}

async function withChosen(path, more) {
  if (await post(path, { serials: [...chosen], ...more })) chosen.clear();
  showPictures();
}
$("forget").onclick = () => withChosen("/api/forget", {});
$("move").onchange = async () => { const name = $("move").value; $("move").value = ""; if (name) await withChosen("/api/move", { name }); };
$("choose-all").onclick = () => { listed().slice(0, shown).forEach(([serial]) => chosen.add(serial)); showPictures(); };
$("choose-none").onclick = () => { chosen.clear(); showPictures(); };
$("only").onchange = () => { shown = FIRST_PICTURES; showPictures(); };
$("more").onclick = () => { shown += FIRST_PICTURES; showPictures(); };
$("undo").onclick = () => post("/api/undo", {});
$("done").onclick = () => post("/api/done", {});

// ---- what it is doing

function showDoing() {
  set($("learner"), doing.learner);
  set($("camera"), doing.camera || "all is well");
  const limits = doing.limits, learner = doing.learner_mib;
  set($("memory"), `${doing.memory_mib} MiB${limits ? ` of ${limits.here_mib}` : ""}`);
  $("meter").hidden = !limits;
  $("learner-row").hidden = learner === null || !limits;
  if (limits) {
    Object.assign($("meter"), { max: limits.here_mib, value: doing.memory_mib });
    Object.assign($("learner-meter"), { max: limits.learner_mib, value: learner ?? 0 });
    set($("learner-memory"), `${learner ?? 0} MiB of ${limits.learner_mib}`);
  }
  if (!view?.picture) set($("blank"), doing.camera || "Waiting for the first picture …");
  doing.is_browser ? offerCamera() : showStream();
}

function showStream() {
  const live = $("live");
  if (!live.hidden) return;
  live.hidden = false;
  live.onerror = () => setTimeout(() => { live.src = `/live.mjpeg?again=${Date.now()}`; }, 2000);
  live.src = "/live.mjpeg";
}

// ---- the browser's own camera

let offered = false;

function offerCamera() {
  if (offered) return;
  offered = true;
  $("use").hidden = false;
  $("use").onclick = async () => {
    if (!navigator.mediaDevices) {
      say("A browser gives its camera to localhost and https alone: use ssh -L 8750:127.0.0.1:8750 BOARD.", true);
      return;
    }
    try {
      const media = { video: { width: { ideal: 640 }, facingMode: "environment" } };
      $("video").srcObject = await navigator.mediaDevices.getUserMedia(media);
      await $("video").play();
    } catch (error) { say(`The browser gave no camera (${error.name}).`, true); return; }
    $("video").hidden = false;
    $("use").hidden = true;
    sendFrames();
  };
}

async function sendFrames() {
  const video = $("video"), canvas = make("canvas");
  for (;;) {
    const began = Date.now();
    canvas.width = Math.min(640, video.videoWidth);
    canvas.height = Math.round(canvas.width * video.videoHeight / video.videoWidth);
    if (canvas.width && !document.hidden) {
      canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
      const body = await new Promise(done => canvas.toBlob(done, "image/jpeg", .85));
      try {
        await fetch("/api/frame", { method: "POST", headers: { "content-type": "image/jpeg", "x-edge-zofc": "1" }, body });
      } catch { /* the banner tells it */ }
    }
    await new Promise(done => setTimeout(done, Math.max(20, FRAME_MS - (Date.now() - began))));
  }
}

// ---- listening

function listen() {
  const source = new EventSource("/events");
  const on = (name, take) => source.addEventListener(name, event => take(JSON.parse(event.data)));
  source.onopen = () => { $("lost").hidden = true; };
  source.onerror = () => {
    $("lost").hidden = false;
    const closed = source.readyState === EventSource.CLOSED;
    $("lost").textContent = closed
      ? "This page is from an earlier start. Open the address that edge-zofc live printed at its last start."
      : "The device does not answer; trying again …";
    if (closed) setTimeout(listen, 5000);
  };
  on("known", found => { known = found; showThings(); if (view) showView(); fetchPictures(); });
  on("view", found => { view = found; showView(); });
  on("doing", found => { doing = found; showDoing(); });
}

listen();
