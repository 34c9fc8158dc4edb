"""A camera's address and the command that it becomes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from edge_zofc.errors import InputError
from edge_zofc.live import addresses
from edge_zofc.live.addresses import read_address, read_command, without_secrets

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes programs, and a PATH with nothing else on it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(addresses.importlib.util, "find_spec", lambda name: None)

    def make(*names: str) -> Path:
        for name in names:
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)
        return folder

    return make


def after(command: tuple[str, ...], option: str) -> str:
    return command[command.index(option) + 1]


def test_a_camera_of_the_system_gives_its_own_jpegs_or_else_raw_pictures(install: Install) -> None:
    folder = install("ffmpeg")
    source = read_address("/dev/video0")
    copy, encode = source.commands
    assert source.name == "/dev/video0"
    for command in source.commands:
        assert command[0] == str(folder / "ffmpeg")
        assert after(command, "-i") == "/dev/video0"
        assert after(command, "-f") == "v4l2"
        assert after(command, "-video_size") == "640x480"
        assert command[-3:] == ("-f", "mjpeg", "pipe:1")
    assert after(copy, "-input_format") == "mjpeg"
    assert after(copy, "-c:v") == "copy"
    assert "-input_format" not in encode
    assert after(encode, "-vf") == "fps=10,scale='min(640,iw)':-2"


def test_a_network_camera_is_read_over_tcp_and_by_its_own_protocols_alone(install: Install) -> None:
    install("ffmpeg")
    (command,) = read_address("RTSP://10.0.0.2:554/stream").commands
    assert after(command, "-i") == "rtsp://10.0.0.2:554/stream"
    assert after(command, "-rtsp_transport") == "tcp"
    assert "file" not in after(command, "-protocol_whitelist").split(",")
    assert after(command, "-c:v") == "mjpeg"


@pytest.mark.parametrize("address", ["http://10.0.0.2/mjpeg", "https://10.0.0.2/mjpeg"])
def test_jpegs_from_the_web_are_taken_as_they_are_first(address: str, install: Install) -> None:
    install("ffmpeg")
    copy, encode = read_address(address).commands
    for command in (copy, encode):
        assert after(command, "-i") == address
        assert "file" not in after(command, "-protocol_whitelist").split(",")
    assert (after(copy, "-c:v"), after(encode, "-c:v")) == ("copy", "mjpeg")


def test_a_film_runs_at_its_own_pace_again_and_again(install: Install, tmp_path: Path) -> None:
    install("ffmpeg")
    film = tmp_path / "http:film.mp4"  # not taken for an address by ffmpeg
    film.write_bytes(b"film")
    (command,) = read_address(f"file://{film}").commands
    assert after(command, "-i") == f"file:{film}"
    assert after(command, "-stream_loop") == "-1"
    assert "-re" in command
    assert after(command, "-protocol_whitelist") == "file"


def test_a_relative_film_is_one_of_this_folder(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("ffmpeg")
    monkeypatch.chdir(tmp_path)
    Path("film.mp4").write_bytes(b"film")
    assert after(read_address("file://film.mp4").commands[0], "-i") == f"file:{tmp_path / 'film.mp4'}"


@pytest.mark.parametrize("program", ["rpicam-vid", "libcamera-vid"])
def test_a_raspberry_pi_has_a_program_for_its_camera(program: str, install: Install) -> None:
    folder = install(program, "gst-launch-1.0")
    (command,) = read_address("csi://1").commands
    assert command[0] == str(folder / program)
    assert after(command, "--camera") == "1"
    assert after(command, "--codec") == "mjpeg"
    assert after(command, "--output") == "-"


def test_a_jetson_reads_its_camera_by_gstreamer(install: Install) -> None:
    folder = install("gst-launch-1.0")
    (command,) = read_address("csi://0").commands
    assert command[:5] == (str(folder / "gst-launch-1.0"), "-q", "nvarguscamerasrc", "sensor-id=0", "!")
    assert command[-4:] == ("jpegenc", "!", "fdsink", "fd=1")
    assert "max-rate=10" in command
    assert "video/x-raw,format=I420,width=640,height=360" in command


def test_folders_and_browsers_need_no_program(install: Install, tmp_path: Path) -> None:
    found = read_address(f"folder://{tmp_path}")
    assert (found.kind, found.folder, found.commands) == ("folder", tmp_path, ())
    assert read_address("browser").kind == "browser"


def test_a_command_is_a_list_of_words(install: Install) -> None:
    install("camera")
    source = read_command("camera -q 'a b; $(reboot)' ! jpegenc | cat")
    assert source.commands == (("camera", "-q", "a b; $(reboot)", "!", "jpegenc", "|", "cat"),)
    assert source.name == "camera"


@pytest.mark.parametrize("command", ["", "  ", "'open", "no-such-program --now"])
def test_a_command_that_cannot_run_is_told(command: str, install: Install) -> None:
    with pytest.raises(InputError, match="--camera-command"):
        read_command(command)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("/dev/video0", "apt install ffmpeg"),
        ("rtsp://10.0.0.2/", "apt install ffmpeg"),
        ("csi://0", "needs gst-launch-1.0"),
        ("csi://front", "give csi://0"),
        ("csi://0;reboot", "give csi://0"),
        ("csi://²", "give csi://0"),
        ("file://none.mp4", "There is no film"),
        ("folder://none", "There is no folder"),
        ("", "give /dev/video0"),
        ("rtsp://", "give /dev/video0"),
        ("ftp://10.0.0.2/x", "give /dev/video0"),
        ("concat:/etc/passwd", "give /dev/video0"),
        ("http://10.0.0.2/\0", "zero byte"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_with_the_way_out(address: str, sentence: str, install: Install) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        read_address(address)
    assert "\n" not in str(caught.value)


def test_a_path_without_its_scheme_is_recognised(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("film.mp4").write_bytes(b"film")
    Path("pictures").mkdir()
    for path, meant in (("film.mp4", "file://film.mp4"), ("pictures", "folder://pictures")):
        with pytest.raises(InputError, match=f"did you mean {meant}"):
            read_address(path)


def test_the_package_with_a_program_stands_in_for_the_systems(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses.importlib.util, "find_spec", lambda name: object())
    package = ModuleType("imageio_ffmpeg")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", package)
    with monkeypatch.context() as patch, pytest.raises(InputError, match="apt install ffmpeg"):
        patch.setattr(package, "get_ffmpeg_exe", lambda: (_ for _ in ()).throw(RuntimeError), raising=False)
        read_address("/dev/video0")
    monkeypatch.setattr(package, "get_ffmpeg_exe", lambda: "/wheel/ffmpeg", raising=False)
    assert read_address("/dev/video0").commands[0][0] == "/wheel/ffmpeg"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:p@ss@10.0.0.2:554/s", "rtsp://…@10.0.0.2:554/s"),
        ("rtsp://admin:pa/ss@10.0.0.2/s", "rtsp://…@10.0.0.2/s"),
        ("http://10.0.0.2/v?user=a&pwd=b", "http://10.0.0.2/v?…"),
        ("http://a:b@10.0.0.2/v?k=c: 401 Unauthorized", "http://…@10.0.0.2/v?… 401 Unauthorized"),
        ("[tcp @ 0x55] to tcp://10.0.0.2 failed: why?", "[tcp @ 0x55] to tcp://10.0.0.2 failed: why?"),
        ("/dev/video0", "/dev/video0"),
    ],
)
def test_users_passwords_and_keys_are_not_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_source_is_named_without_its_secrets(install: Install) -> None:
    install("ffmpeg")
    source = read_address("rtsp://admin:secret@10.0.0.2/s?token=key")
    assert source.name == "rtsp://…@10.0.0.2/s?…"
    assert after(source.commands[0], "-i") == "rtsp://admin:secret@10.0.0.2/s?token=key"
    with pytest.raises(InputError) as caught:
        read_address("rtmp://admin:secret@10.0.0.2/s")
    assert "secret" not in str(caught.value)
