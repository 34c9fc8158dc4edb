#!/bin/sh
# Replay the known answers under an emulated aarch64 processor, with Debian's own arm64 Python and PyPI's aarch64 wheels.
#
#     tests/golden/replay_on_aarch64.sh FOLDER        FOLDER keeps the emulated system (about 400 MB) for the next time
#
# Needs root for "apt-get install" where qemu-user-static or debootstrap are missing; nothing outside of FOLDER is changed
# otherwise, and nothing is run as root inside. Prints what replay_here.py prints; its exit code is that of this script.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "$1"
place=$(cd "$1" && pwd)

command -v qemu-aarch64-static >/dev/null && command -v debootstrap >/dev/null ||
    apt-get install -y --no-install-recommends qemu-user-static debootstrap arch-test >&2

system=$place/system
if [ ! -e "$place/system-is-whole" ]; then
    rm -rf "$system"
    # The first stage alone: packages are fetched, checked against Debian's key and unpacked; none is configured.
    debootstrap --arch=arm64 --foreign --variant=minbase --include=python3,libstdc++6 bookworm "$system" >&2
    for package in "$system"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$system"; done
    touch "$place/system-is-whole"
fi
if [ ! -e "$place/wheels-are-whole" ]; then
    rm -rf "$place/wheels"
    python3 -m pip install --quiet --target "$place/wheels" --only-binary=:all: --python-version 3.11 \
        --implementation cp --platform manylinux2014_aarch64 --platform manylinux_2_28_aarch64 \
        "numpy>=1.26" "pydantic>=2.7" "safetensors>=0.4.3" >&2
    touch "$place/wheels-are-whole"
fi
# The sources as they are: edge_zofc/ alone needs no building. -L: where the emulated program finds its libraries.
PYTHONHOME=$system/usr PYTHONPATH=$root:$place/wheels PYTHONDONTWRITEBYTECODE=1 \
    exec qemu-aarch64-static -L "$system" "$system/usr/bin/python3.11" "$here/replay_here.py"
