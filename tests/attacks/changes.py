"""Changed copies of a good input: cuts, flips and wild values. What they yield is (what was done, bytes)."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

Change = tuple[str, bytes]
Path = tuple[str | int, ...]

WILD: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, -(2**63), 10**400, 1e308, -1e308, float("nan"), float("inf"), "", "x", "1",
    "../../../etc/passwd", "/etc/passwd", "a\x00b", "\ud800", "\x1b[2J\nsecond line", "é" * 5000, [], [[]], [-1], {},
    {"x": 1}, [1e9] * 50,
)  # fmt: skip
"""What a field may hold instead: other types, huge and negative numbers, paths that leave, text that fools."""


def cuts(good: bytes, most: int, seed: int = 1) -> Iterator[Change]:
    """The file cut off after each length (or ``most`` drawn from the seed), and with something behind it."""
    for length in _places(len(good), most, seed):
        yield f"cut to {length}", good[:length]
    for tail in (b"\0", b"\n", good[:7], bytes(4096)):
        yield f"followed by {tail[:8]!r}", good + tail


def flips(good: bytes, most: int, seed: int = 2) -> Iterator[Change]:
    """Each byte (or ``most`` drawn from the seed) changed, to a value drawn from the seed."""
    chance = random.Random(seed)
    for at in _places(len(good), most, seed):
        mask = chance.choice((0x01, 0x20, 0x80, 0xFF, chance.randrange(1, 256)))
        yield f"byte {at} ^ {mask:#x}", good[:at] + bytes([good[at] ^ mask]) + good[at + 1 :]


def noise(good: bytes, count: int, seed: int = 3) -> Iterator[Change]:
    """Pieces of the file overwritten, repeated, left out or swapped, and files that were never good."""
    chance = random.Random(seed)
    for number in range(count):
        a, b = sorted(chance.randrange(len(good) + 1) for _ in range(2))
        filler = chance.choice((b"\0", b"\xff", b"9", b"[", chance.randbytes(1))) * (b - a)
        changed = (
            good[:a] + filler + good[b:],
            good[:b] + good[a:],
            good[:a] + good[b:],
            good[b:] + good[:b],
            chance.randbytes(b - a),
        )
        yield f"noise {number} at {a}-{b}", changed[number % len(changed)]


def wild_fields(good: Any) -> Iterator[tuple[str, Any]]:
    """Copies of a JSON value with one field wild, missing or doubled under another name."""
    for path in _paths(good):
        for value in WILD:
            yield (f"{path} = {value!r:.40}", _with(good, path, lambda holder, key, v=value: _set(holder, key, v)))
        yield f"{path} missing", _with(good, path, lambda holder, key: holder.pop(key))
        yield f"{path} nested", _with(good, path, lambda holder, key: _set(holder, key, [holder[key]]))
        if isinstance(path[-1], str):
            yield (f"{path} renamed", _with(good, path, lambda holder, key: _set(holder, key + " ", holder.pop(key))))
            yield (f"{path} beside", _with(good, path, lambda holder, key: _set(holder, "../" + key, holder[key])))


def as_json(value: Any) -> bytes:
    """JSON text, NaN and lone surrogates included, as a writer without scruples makes it."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _places(size: int, most: int, seed: int) -> list[int]:
    return list(range(size)) if size <= most else sorted(random.Random(seed).sample(range(size), most))


def _paths(value: Any, before: Path = ()) -> Iterator[Path]:
    # Of a list the first two and the last entry stand for all.
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if isinstance(key, int) and 2 <= key < len(value) - 1:
            continue
        yield (*before, key)
        yield from _paths(inner, (*before, key))


def _with(good: Any, path: Path, change: Callable[[Any, Any], Any]) -> Any:
    changed = copy.deepcopy(good)
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return changed


def _set(holder: Any, key: Any, value: Any) -> None:
    holder[key] = value
