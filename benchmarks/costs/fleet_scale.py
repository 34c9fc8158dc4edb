"""What a fleet's messages come to when it grows: ``python -m edge_zofc.benchmarks.costs.fleet_scale --help``.

Bytes are those of real messages, by their encoders, times the number of devices; nothing is sent. Each device knows
CLASSES classes of PICTURES pictures together, the fleet FLEET_CLASSES. Features are made up, of mean square 1. A fleet
of more than MOST_DEVICES has gateways that each merge the shares of so many, and send one. Seconds are the processor's,
of one device's share, times the number of devices.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge_zofc.algorithm.merging import Merging
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.benchmarks.tables import as_markdown
from edge_zofc.fleet.exchange import Answer, Ask, News, Receipt, new_nonce, sealed
from edge_zofc.fleet.merging import check_scatter
from edge_zofc.storage.fleet_folder import MOST_DEVICES
from edge_zofc.storage.share import Share, decode, encode

CLASSES, PICTURES, FLEET_CLASSES = 3, 100, 100
SIZES, DEVICES = (192, 768, 1280), (100, 10_000, 1_000_000)
MB, GB = 1e6, 1e9
COLUMNS = {
    "size": ("D", ""),
    "devices": ("devices", ",d"),
    "share_kb": ("kB a share", ",.0f"),
    "news_kb": ("kB the head", ",.0f"),
    "up_gb": ("GB up, once a task", ",.3f"),
    "down_gb": ("GB down, once a task", ",.3f"),
    "quiet_mb": ("MB a round without news", ",.2f"),
    "gateway_gb": ("GB from gateways", ",.3f"),
    "check_hours": ("CPU h to check all", ",.2f"),
    "merge_hours": ("CPU h to merge all", ",.3f"),
}


def a_share(size: int, classes: int = CLASSES, times: int = 1) -> Share:
    """The share of ``times`` devices with features of ``size`` entries, all alike."""
    generator = np.random.default_rng(0)
    labels = np.arange(max(PICTURES, classes)) % classes
    statistics = Statistics.empty(classes, size)
    statistics.add(np.abs(generator.normal(size=(len(labels), size))).astype(np.float32), labels)
    many = Statistics(times * statistics.sums, times * statistics.counts, times * statistics.moment)
    names = tuple(f"class-{number:03d}" for number in range(classes))
    return Share("fleet" if times > 1 else "device-0000001", 1, "ab" * 32, "cd" * 32, True, names, many)


def measure(size: int, devices: int, repeats: int = 3) -> dict[str, Any]:
    """One row: a task's shares and the head that all get, a round in which nothing is new, and the processor's time."""
    share, nonce = encode(a_share(size)), new_nonce()
    ask = sealed(
        Ask(
            nonce=nonce, bundle_identity="ab" * 32, adapter_sha256="cd" * 32, feature_size=size, normalise=True,
            held="ef" * 32,
        )
    )  # fmt: skip
    answer, same = sealed(Answer(nonce=nonce, state="share"), share), sealed(Answer(nonce=nonce, state="same"))
    body = encode(a_share(size, FLEET_CLASSES, devices))
    news = sealed(News(nonce=nonce, number=1, devices=devices), body)
    receipt = sealed(Receipt(nonce=nonce, taken=True, reason="no picture held back to try it on"))
    gateways = -(-devices // MOST_DEVICES)
    forwarded = len(encode(a_share(size, FLEET_CLASSES, MOST_DEVICES))) if gateways > 1 else 0
    decoded, merging = decode(share), Merging(size)
    checking = _seconds(lambda: check_scatter(decode(share), "x"), repeats)
    adding = _seconds(lambda: merging.add(decoded.class_names, decode(share).statistics), repeats)
    return {
        "size": size,
        "devices": devices,
        "share_kb": len(share) / 1000,
        "news_kb": len(news) / 1000,
        "up_gb": devices * (len(answer) + len(receipt)) / GB,
        "down_gb": devices * (len(ask) + len(news)) / GB,
        "quiet_mb": devices * (len(ask) + len(same)) / MB,
        "gateway_gb": gateways * forwarded / GB or None,
        "check_hours": devices * checking / 3600,
        "merge_hours": devices * adding / 3600,
    }


def _seconds(what: Callable[[], object], repeats: int) -> float:
    """The least processor time of one call."""
    found = []
    for _ in range(repeats):
        before = time.process_time()
        what()
        found.append(time.process_time() - before)
    return min(found)


def main(words: Sequence[str] | None = None) -> int:
    """Print a Markdown table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m edge_zofc.benchmarks.costs.fleet_scale", description=__doc__)
    parser.add_argument("--sizes", metavar="D", type=int, nargs="+", default=SIZES, help="lengths of a feature")
    parser.add_argument("--devices", metavar="N", type=int, nargs="+", default=DEVICES, help="devices of a fleet")
    options = parser.parse_args(words)
    rows = [measure(size, devices) for size in options.sizes for devices in options.devices]
    sys.stdout.write(as_markdown(COLUMNS, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
