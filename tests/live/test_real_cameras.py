"""Real programs behind a camera: ffmpeg's films, an RTSP server that freezes, JPEGs over HTTP, GStreamer."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from jpegs import with_thumbnail
from PIL import Image
from programs import RTSP_PYTHON, ffmpeg, need

from edge_zofc.live.addresses import _COPY, read_command
from edge_zofc.live.camera import Camera, Frame
from edge_zofc.live.jpegs import Splitter

pytestmark = pytest.mark.camera
WAIT_SECONDS = 30


def wait_until(true: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def size_of(frame: Frame | None) -> tuple[int, int]:
    """The size of a picture that decodes to its end."""
    assert frame is not None
    with Image.open(io.BytesIO(frame.jpeg)) as image:
        image.load()
        return image.size


def film(path: Path, seconds: int, codec: str = "libx264", size: str = "1280x720") -> Path:
    need("ffmpeg")
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=duration={seconds}:size={size}:rate=30", "-c:v", codec, path)
    return path


def test_a_film_is_shown_at_its_own_pace_again_and_again(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 2)
    with Camera(f"file://{path}") as camera:
        assert size_of(camera.wait_newer(0, WAIT_SECONDS)) == (640, 360)
        started, first = time.monotonic(), camera.state.pictures
        time.sleep(5)
        rate = (camera.state.pictures - first) / (time.monotonic() - started)
        assert camera.state.restarts == 0
    assert 7 < rate < 11  # a film of two seconds, five seconds long


def test_a_small_film_is_not_made_larger(tmp_path: Path) -> None:
    with Camera(f"file://{film(tmp_path / 'film.mp4', 1, size='320x240')}") as camera:
        assert size_of(camera.wait_newer(0, WAIT_SECONDS)) == (320, 240)


def test_a_file_that_is_no_film_is_told_with_ffmpegs_words(tmp_path: Path) -> None:
    need("ffmpeg")
    (tmp_path / "film.mp4").write_text("no film")
    with Camera(f"file://{tmp_path / 'film.mp4'}") as camera:
        wait_until(lambda: "again" in camera.state.sentence)
        assert "Invalid data found" in camera.state.sentence


@pytest.mark.parametrize("kind", ["playlist", "concat"])
def test_a_film_may_not_name_other_files_of_the_network(kind: str, tmp_path: Path) -> None:
    need("ffmpeg")
    asked: list[str] = []
    with web(lambda handler: asked.append(handler.path)) as port:
        texts = {
            "playlist": f"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:{port}/part.ts\n#EXT-X-ENDLIST\n",
            "concat": f"ffconcat version 1.0\nfile http://127.0.0.1:{port}/part.ts\n",
        }
        (tmp_path / "film.mp4").write_text(texts[kind])
        with Camera(f"file://{tmp_path / 'film.mp4'}") as camera:
            wait_until(lambda: "again" in camera.state.sentence)
    assert asked == []


@contextmanager
def web(answer: Callable[[BaseHTTPRequestHandler], object]) -> Iterator[int]:
    """A server on loopback whose GET is answered by ``answer``; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:
                return  # the reader has gone

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def stream_pictures(handler: BaseHTTPRequestHandler, pictures: list[bytes], seconds: float = 600) -> None:
    """Pictures again and again as ``multipart/x-mixed-replace``, 20 a second."""
    handler.send_response(200)
    handler.send_header("content-type", "multipart/x-mixed-replace; boundary=next")
    handler.end_headers()
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        for jpeg in pictures:
            head = f"--next\r\ncontent-type: image/jpeg\r\ncontent-length: {len(jpeg)}\r\n\r\n".encode()
            handler.wfile.write(head + jpeg + b"\r\n")
            time.sleep(0.05)


def test_jpegs_over_http_come_as_they_are_and_again_after_a_break() -> None:
    need("ffmpeg")
    pictures = [with_thumbnail(number) for number in range(3)]
    opened = web(lambda handler: stream_pictures(handler, pictures, 2))
    with opened as port, Camera(f"http://me:secret@127.0.0.1:{port}/mjpeg?key=k") as camera:
        frame = camera.wait_newer(0, WAIT_SECONDS)
        assert size_of(frame) == (40, 32)
        started = time.monotonic()
        wait_until(lambda: camera.state.restarts == 1)
        newest = camera.newest()
        assert newest is not None
        assert camera.wait_newer(newest.serial, WAIT_SECONDS)
        assert time.monotonic() - started < 10
        assert "secret" not in camera.state.sentence
        assert "key=k" not in camera.state.sentence


def test_a_film_over_http_is_encoded(tmp_path: Path) -> None:
    data = film(tmp_path / "film.ts", 4).read_bytes()

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(data)

    with web(send) as port, Camera(f"http://127.0.0.1:{port}/film.ts") as camera:
        assert size_of(camera.wait_newer(0, WAIT_SECONDS)) == (640, 360)


def test_a_server_that_refuses_is_told() -> None:
    need("ffmpeg")
    opened = web(lambda handler: handler.send_error(401))
    with opened as port, Camera(f"http://me:secret@127.0.0.1:{port}/mjpeg") as camera:
        wait_until(lambda: "again in" in camera.state.sentence)
        assert "401" in camera.state.sentence
        assert "secret" not in camera.state.sentence


def test_cameras_own_jpegs_get_their_huffman_tables(tmp_path: Path) -> None:
    """As of /dev/video0, from a film of JPEGs that lack them."""
    need("ffmpeg")
    whole = with_thumbnail(0)
    bare = without_segment(whole, 0xC4)
    (tmp_path / "bare.mjpeg").write_bytes(bare * 3)
    done = subprocess.run(
        ["ffmpeg", "-loglevel", "error", "-f", "mjpeg", "-i", tmp_path / "bare.mjpeg", *_COPY],
        capture_output=True,
        check=True,
    )
    found = Splitter().feed(done.stdout)
    assert len(found) == 3
    assert b"\xff\xc4" in found[0]
    with Image.open(io.BytesIO(found[0])) as one, Image.open(io.BytesIO(whole)) as other:
        assert one.tobytes() == other.tobytes()


def without_segment(jpeg: bytes, marker: int) -> bytes:
    at, kept = 2, jpeg[:2]
    while jpeg[at + 1] != 0xDA:
        length = 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        kept += b"" if jpeg[at + 1] == marker else jpeg[at : at + length]
        at += length
    return kept + jpeg[at:]


SERVER = """
import sys, gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server, factory = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
server.set_address("127.0.0.1"); server.set_service(sys.argv[1])
source = "videotestsrc is-live=true ! video/x-raw,format=I420,width=1280,height=720,framerate=15/1"
factory.set_launch(f"( {source} ! jpegenc ! rtpjpegpay name=pay0 )")
factory.set_shared(True)
server.get_mount_points().add_factory("/s", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""


@contextmanager
def rtsp_server() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process that serves a test picture, and its address."""
    need("ffmpeg", "rtsp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([RTSP_PYTHON, "-c", SERVER, str(port)], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield server, f"rtsp://127.0.0.1:{port}/s"
        finally:
            server.kill()


def test_a_network_camera_that_freezes_comes_back() -> None:
    with rtsp_server() as (server, address), Camera(address) as camera:
        assert size_of(camera.wait_newer(0, WAIT_SECONDS)) == (640, 360)
        wait_until(lambda: camera.state.pictures >= 10)
        server.send_signal(signal.SIGSTOP)
        frozen = time.monotonic()
        wait_until(lambda: not camera.state.ok, 10)
        assert 2.5 < time.monotonic() - frozen < 7
        assert "no picture for 3 s" in camera.state.sentence
        time.sleep(5)
        before = camera.state.pictures
        server.send_signal(signal.SIGCONT)
        wait_until(lambda: camera.state.pictures > before + 20)
        assert camera.state.ok


def test_a_network_camera_that_is_off_is_told_and_found_later() -> None:
    need("ffmpeg", "rtsp")
    with Camera("rtsp://127.0.0.1:1/s") as camera:
        wait_until(lambda: "again" in camera.state.sentence)
        assert "Connection refused" in camera.state.sentence


def test_a_users_own_pipe_of_gstreamer_is_a_camera() -> None:
    need("gst-launch-1.0")
    pipe = "gst-launch-1.0 -q videotestsrc is-live=true ! video/x-raw,width=320,height=240 ! jpegenc ! fdsink fd=1"
    with Camera(read_command(pipe)) as camera:
        assert size_of(camera.wait_newer(0, WAIT_SECONDS)) == (320, 240)
        wait_until(lambda: camera.state.pictures > 5)


def test_gstreamers_own_error_is_the_reason() -> None:
    need("gst-launch-1.0")
    with Camera(read_command("gst-launch-1.0 -q v4l2src device=/dev/none ! jpegenc ! fdsink fd=1")) as camera:
        wait_until(lambda: "again" in camera.state.sentence)
        assert "/dev/none" in camera.state.sentence
