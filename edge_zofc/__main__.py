"""``python -m edge_zofc``: the command line."""

import sys

from edge_zofc.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
