// The browser's own camera, where the server asks for it.

import { $, make } from "./page.js";
import { say } from "./server.js";

const FRAME_MS = 200;

let offered = false;

export function offerCamera() {
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
