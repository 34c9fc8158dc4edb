// The page: shows what the server says (events), and tells it what a person does (POST). Names and sentences come from
// people and cameras: they reach the page as text alone.

import { showView } from "./answer.js";
import { showDoing } from "./doing.js";
import { fetchPictures, offerNames } from "./lesson.js";
import { $ } from "./page.js";
import { told } from "./server.js";
import { showThings } from "./things.js";

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
  on("known", found => {
    told.known = found;
    showThings();
    offerNames(found.classes.map(one => one.name));
    if (told.view) showView();
    fetchPictures();
  });
  on("view", found => { told.view = found; showView(); });
  on("doing", found => { told.doing = found; showDoing(); });
}

listen();
