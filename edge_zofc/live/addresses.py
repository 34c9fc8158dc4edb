"""A camera's address, and the commands of the child process that writes its pictures to standard output.

    /dev/video0                ffmpeg: the JPEGs that the camera makes itself, else its raw pictures encoded
    csi://0                    rpicam-vid or libcamera-vid (Raspberry Pi), else gst-launch-1.0 nvarguscamerasrc (Jetson)
    rtsp://..., rtsps://...    ffmpeg
    http://..., https://...    ffmpeg: a stream of JPEGs as it is, else anything that ffmpeg reads, encoded
    file://film.mp4            ffmpeg, at the film's own pace, again and again
    folder://pictures          its JPEG files one after the other, again and again; no child
    browser                    pictures that somebody hands over; no child

What is encoded here is about 640 pixels wide and comes 10 times a second. Where an address gives several commands, the
next one is tried when one ends without a picture.

A command is a list of words and never meets a shell. ffmpeg may use the address's own protocols alone: else a playlist
on a hostile server could name files of this computer. Addresses may hold passwords and keys; ``without_secrets`` takes
them out of everything that is shown. Other users of the computer still see them in the list of processes.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_zofc.errors import InputError, quoted, shown

PICTURES_A_SECOND = 10
WIDTH, HEIGHT = 640, 480
ADDRESSES = "/dev/video0, csi://0, rtsp://..., http://..., file://FILM, folder://FOLDER"

_JPEGS_OUT = ("-flush_packets", "1", "-f", "mjpeg", "pipe:1")
# ffmpeg looks at a stream for so long before it gives the first picture (microseconds). With nobuffer it would throw
# away what it saw meanwhile, whole pictures that come every few seconds alone. No timeouts: their options mean other
# things in other versions of ffmpeg, and a silent child is ended anyway.
_SOON = ("-analyzeduration", "1000000")
# Cameras leave the Huffman tables out of their JPEGs, and not every browser knows them by heart. The filter adds them.
_COPY = ("-an", "-c:v", "copy", "-bsf:v", "mjpeg2jpeg", *_JPEGS_OUT)
_ENCODE = (
    "-an",
    "-vf",
    f"fps={PICTURES_A_SECOND},scale='min({WIDTH},iw)':-2",
    "-c:v",
    "mjpeg",
    "-q:v",
    "4",
    *_JPEGS_OUT,
)
_PROTOCOLS = {
    "rtsp": "rtsp,rtp,srtp,udp,tcp,http",
    "rtsps": "rtsp,rtsps,rtp,srtp,udp,tcp,tls,crypto",
    "http": "http,https,httpproxy,tcp,tls,crypto",
    "https": "http,https,httpproxy,tcp,tls,crypto",
}


@dataclass(frozen=True)
class Source:
    """Where pictures come from: ``name`` can be shown; a child tries ``commands`` in order."""

    kind: Literal["child", "folder", "browser"]
    name: str
    commands: tuple[tuple[str, ...], ...] = ()
    folder: Path | None = None


def read_address(address: str) -> Source:
    """The source at ``address``. Raises InputError for an address or a missing program, file or folder."""
    if "\0" in address:
        raise InputError(f"{quoted(address)} is no address of a camera, for it holds a zero byte.")
    if address == "browser":
        return Source("browser", "browser")
    if address.startswith("/dev/"):
        return Source("child", shown(address), _device(address))
    scheme, colon, rest = address.partition("://")
    scheme = scheme.lower()
    if colon and rest:
        if scheme == "csi":
            return Source("child", shown(address), (_board_camera(rest),))
        if scheme in _PROTOCOLS:
            return Source("child", shown(without_secrets(address)), _network(scheme, rest))
        if scheme == "file":
            return Source("child", shown(address), (_film(rest),))
        if scheme == "folder":
            return Source("folder", shown(address), folder=_folder(rest))
    near = _nearest(address)
    hint = f"did you mean {near}?" if near else f"give {ADDRESSES} or browser, or a command with --camera-command."
    raise InputError(f"{quoted(without_secrets(address))} is no address of a camera; {hint}")


def read_command(text: str) -> Source:
    """The source that a user's own command is: it writes JPEGs to standard output. Raises InputError."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise InputError(f"--camera-command {quoted(text)} cannot be read ({str(error).lower()}).") from error
    if not words:
        raise InputError("--camera-command is empty; give a command that writes JPEGs to standard output.")
    if shutil.which(words[0]) is None:
        raise InputError(f"--camera-command: there is no program {shown(words[0])}; install it or give its whole path.")
    return Source("child", shown(Path(words[0]).name), (words,))


def without_secrets(text: str) -> str:
    """``text`` without what stands before an @ or after a ? in the addresses in it: users, passwords and keys."""
    text = re.sub(r"://[^\s'\"]*@", "://…@", text)
    return re.sub(r"(://[^\s'\"?]*)\?[^\s'\"]+", r"\1?…", text)


def _nearest(address: str) -> str:
    path = Path(address)
    if not address or "://" in address or not path.exists():
        return ""
    return shown(f"{'folder' if path.is_dir() else 'file'}://{address}")


def _device(path: str) -> tuple[tuple[str, ...], ...]:
    size = ("-video_size", f"{WIDTH}x{HEIGHT}", "-i", path)
    return (_ffmpeg("-f", "v4l2", "-input_format", "mjpeg", *size, *_COPY), _ffmpeg("-f", "v4l2", *size, *_ENCODE))


def _network(scheme: str, rest: str) -> tuple[tuple[str, ...], ...]:
    before, address = ("-protocol_whitelist", _PROTOCOLS[scheme], *_SOON), f"{scheme}://{rest}"
    if scheme.startswith("rtsp"):
        # Over UDP lost packets tear pictures, and a firewall drops them all.
        return (_ffmpeg("-rtsp_transport", "tcp", *before, "-i", address, *_ENCODE),)
    return (_ffmpeg(*before, "-i", address, *_COPY), _ffmpeg(*before, "-i", address, *_ENCODE))


def _film(name: str) -> tuple[str, ...]:
    path = Path(name).absolute()
    if not path.is_file():
        raise InputError(f"There is no film {shown(path)}; check the path behind file://.")
    whole = ("-protocol_whitelist", "file", "-re", "-stream_loop", "-1", "-i", f"file:{path}")
    return _ffmpeg(*whole, *_ENCODE)


def _folder(name: str) -> Path:
    path = Path(name).absolute()
    if not path.is_dir():
        raise InputError(f"There is no folder {shown(path)}; check the path behind folder://.")
    return path


def _board_camera(number: str) -> tuple[str, ...]:
    if not (number.isascii() and number.isdecimal()):
        raise InputError(f"csi://{shown(number)} has no number; give csi://0 for the first camera of the board.")
    rate = str(PICTURES_A_SECOND)
    for program in ("rpicam-vid", "libcamera-vid"):
        if found := shutil.which(program):
            size = ("--width", str(WIDTH), "--height", str(HEIGHT), "--framerate", rate)
            still = ("--camera", number, "--nopreview", "--timeout", "0")
            return (found, *still, *size, "--codec", "mjpeg", "--flush", "--output", "-")
    if found := shutil.which("gst-launch-1.0"):
        # 16:9 as its sensors are; the converter of the board makes it smaller.
        wanted = "video/x-raw(memory:NVMM),width=1280,height=720"
        smaller = f"video/x-raw,format=I420,width={WIDTH},height={WIDTH * 9 // 16}"
        steps = f"{wanted} ! nvvidconv ! {smaller} ! videorate drop-only=true max-rate={rate} ! jpegenc ! fdsink fd=1"
        return (found, "-q", "nvarguscamerasrc", f"sensor-id={number}", "!", *steps.split())
    raise InputError(
        f"csi://{number} needs gst-launch-1.0 (on a Jetson a part of JetPack) or rpicam-vid (on a Raspberry Pi "
        "'sudo apt install rpicam-apps'), and neither is here."
    )


def _ffmpeg(*words: str) -> tuple[str, ...]:
    # Two threads: with one a core ffmpeg would keep as many pictures in memory, and show them later.
    return (_ffmpeg_program(), "-hide_banner", "-loglevel", "error", "-nostdin", "-threads", "2", *words)


def _ffmpeg_program() -> str:
    """Debian's ffmpeg, else that of the package imageio-ffmpeg. Raises InputError."""
    if found := shutil.which("ffmpeg"):
        return found
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        try:
            return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
        except (ImportError, RuntimeError, OSError):
            pass  # a package without its program, as on boards that it is not built for
    raise InputError("This camera needs the program ffmpeg; install it with 'sudo apt install ffmpeg'.")
