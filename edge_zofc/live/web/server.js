// What the server said last, and how it is told what a person does.

import { $, set } from "./page.js";

const MESSAGE_MS = 6000;

// The newest events: null until the first of their kind came.
export const told = { view: null, known: null, doing: null };

let messageUntil = 0;

export async function post(path, body) {
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

export function say(sentence, bad) {
  $("note").textContent = sentence;
  $("note").classList.toggle("bad", bad);
  messageUntil = Date.now() + MESSAGE_MS;
}

// The server's own sentence stands once what was said here is read.
export function showNote() {
  if (Date.now() > messageUntil) { set($("note"), told.view.note); $("note").classList.remove("bad"); }
}
