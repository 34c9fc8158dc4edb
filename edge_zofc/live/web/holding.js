// Hold to show: mouse, touch and keys. The server lets go by itself when it is not told again.

import { post } from "./server.js";

const RENEW_MS = 2000;

let held = null, renewal = 0, buttonHeld = null;

function down(name, button, choose) {
  if (held !== null) return;
  held = name; buttonHeld = button;
  button?.classList.add("down");
  choose(name);
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

// ``choose`` is told the name of what is shown.
export function holdable(button, name, choose) {
  button.onpointerdown = event => { if (event.button === 0) { button.setPointerCapture(event.pointerId); down(name, button, choose); } };
  // Another button loses the focus as this one is pressed, which is no end of the press.
  const upIfHeld = () => { if (buttonHeld === button) up(); };
  button.onpointerup = button.onpointercancel = button.onlostpointercapture = button.onblur = upIfHeld;
  button.oncontextmenu = event => event.preventDefault();
  button.onkeydown = event => {
    if (event.key === " " || event.key === "Enter") { event.preventDefault(); if (!event.repeat) down(name, button, choose); }
  };
  button.onkeyup = event => { if (event.key === " " || event.key === "Enter") { event.preventDefault(); up(); } };
}

// Space shows what ``chosen`` gives, [name, button], wherever no control has the focus.
export function spaceHolds(chosen, choose) {
  document.addEventListener("keydown", event => {
    if (event.key !== " " || event.target.closest("button, input, select, a, [contenteditable]")) return;
    event.preventDefault();
    const found = event.repeat ? null : chosen();
    if (found) down(...found, choose);
  });
  document.addEventListener("keyup", event => { if (event.key === " " && !event.target.closest("button, input")) up(); });
}

addEventListener("blur", up);
document.addEventListener("visibilitychange", () => { if (document.hidden) up(); });
