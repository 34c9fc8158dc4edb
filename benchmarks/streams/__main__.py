"""``python -m edge_zofc.benchmarks.streams``: the same as ``edge-zofc bench streams``, without its other packages."""

import sys

from edge_zofc.benchmarks.streams.downloads import command

if __name__ == "__main__":
    sys.exit(command())
