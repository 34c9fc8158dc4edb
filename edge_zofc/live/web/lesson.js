// The lesson's pictures: chosen to be forgotten or moved.

import { $, count, keyed, make, set } from "./page.js";
import { post } from "./server.js";

const FIRST_PICTURES = 60;

let pictures = [];                 // [serial, name, part, burst], newest last
let chosen = new Set(), lastChosen = null, shown = FIRST_PICTURES;
let fetching = false, stale = false;

export async function fetchPictures() {
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

// Classes whose pictures may be listed alone, or moved to.
export function offerNames(names) {
  for (const select of [$("only"), $("move")]) {
    const before = select.value;
    while (select.options.length > names.length + 1) select.remove(select.options.length - 1);
    names.forEach((name, index) => {
      const option = select.options[index + 1] ?? select.appendChild(make("option"));
      if (option.value !== name) { option.value = name; option.textContent = name; }
    });
    if (select.value !== before) select.value = names.includes(before) ? before : "";
  }
}
