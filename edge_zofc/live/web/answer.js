// What the newest picture shows, how alike it is, and one click where that is wrong.

import { $, count, keyed, make, set } from "./page.js";
import { post, showNote, told } from "./server.js";
import { things } from "./things.js";

const FEW_CHIPS = 12;

let allChips = false;

export function showView() {
  const { view, known } = told, answer = $("answer"), recording = view.recording;
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
  showNote();
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
  const { view } = told, guess = view.guesses.find(found => found.class_name === name);
  const [bar, limit] = row.querySelector("svg").children;
  set(row.querySelector(".name"), name);
  set(row.querySelector(".value"), guess.likeness.toFixed(2));
  row.classList.toggle("best", name === view.caption);
  bar.setAttribute("width", String(100 * Math.min(1, Math.max(0, guess.likeness))));
  for (const side of ["x1", "x2"]) limit.setAttribute(side, String(100 * Math.min(1, Math.max(0, view.limit))));
}

function showChips() {
  const { view } = told, names = things().map(thing => thing.name).filter(name => name !== view.caption);
  const few = allChips ? names : names.slice(0, FEW_CHIPS);
  $("correct").hidden = !names.length || !view.picture || view.recording !== null;
  set($("correct-title"), view.caption === "" ? "One click on what it is, or a new name for it:" : "Not right? One click on what it is:");
  const keys = few.map(name => `=${name}`).concat(names.length > few.length ? ["more"] : []);
  keyed($("chips"), keys, key => {
    const chip = make("button", "", key === "more" ? "All things …" : key.slice(1));
    chip.type = "button";
    chip.onclick = () => key === "more" ? (allChips = true, showChips()) : post("/api/correct", { name: key.slice(1), picture: told.view.picture });
    return chip;
  }, () => {});
}
