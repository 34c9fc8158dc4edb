// What it is doing: memory, the learner, the camera.

import { offerCamera } from "./camera.js";
import { $, set } from "./page.js";
import { told } from "./server.js";

export function showDoing() {
  const { view, doing } = told;
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
