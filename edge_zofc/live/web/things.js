// The things it knows: a row each, with the button that shows it, its new name, and forgetting.

import { holdable, spaceHolds } from "./holding.js";
import { $, keyed, set } from "./page.js";
import { post, told } from "./server.js";

const order = [];                  // names as they came: a row whose button is held must not move
let fresh = [];                    // names that were added here and not shown yet
let chosenThing = null;

export function things() {
  const classes = told.known?.classes ?? [];
  fresh = fresh.filter(name => !classes.some(one => one.name === name));
  const none = { learnt: 0, taught: 0, kept_back: 0, kept_back_right: 0, looks_like: null };
  const all = classes.concat(fresh.map(name => ({ name, ...none })));
  for (const one of all) if (!order.includes(one.name)) order.push(one.name);
  return all.sort((one, other) => order.indexOf(one.name) - order.indexOf(other.name));
}

export function showThings() {
  const { known } = told;
  if (!known) return;
  const all = things(), names = all.map(thing => thing.name);
  if (!names.includes(chosenThing)) chosenThing = names.at(-1) ?? null;
  $("empty").hidden = names.length > 0;
  $("hint").hidden = !names.length;
  keyed($("classes"), names, thingRow, (row, name) => updateThing(row, all[names.indexOf(name)]));
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
  row.querySelector(".choose").onclick = () => choose(name);
  holdable(hold, name, choose);
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

function choose(name) { chosenThing = name; showThings(); }

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

spaceHolds(() => chosenThing === null ? null : [chosenThing, $("classes").keyed?.get(chosenThing)?.querySelector(".hold")], choose);
