"""What a test of real cameras or brokers needs of the system."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

RTSP_PYTHON = "/usr/bin/python3"
"""Debian's own: its bindings of GStreamer are no packages of an environment."""
_INSTALL = {
    "ffmpeg": "ffmpeg",
    "mosquitto": "mosquitto mosquitto-clients",
    "mosquitto_sub": "mosquitto-clients",
    "openssl": "openssl",
    "gst-launch-1.0": "gstreamer1.0-tools gstreamer1.0-plugins-good",
    "rtsp": "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-bad",
}


def need(*names: str) -> None:
    """Skip the test where a program is missing; ``rtsp`` is GStreamer's RTSP server."""
    for name in names:
        if not (_has_rtsp_server() if name == "rtsp" else found(name)):
            pytest.skip(f"{name} is not installed: apt-get install --no-install-recommends {_INSTALL[name]}")


def found(name: str) -> str | None:
    """Where a program is; those of services are not in everybody's path."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def _has_rtsp_server() -> bool:
    body = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    if not Path(RTSP_PYTHON).exists():
        return False
    return subprocess.run([RTSP_PYTHON, "-c", body], capture_output=True, check=False).returncode == 0


def ffmpeg(*words: object) -> None:
    """Run ffmpeg to its end."""
    command: Sequence[str] = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *map(str, words)]
    subprocess.run(command, check=True)
