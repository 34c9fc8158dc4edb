"""How to start a module of this package in a process of its own.

What may surprise: not with ``python -m``. That looks into the present folder first, and in a checkout of this
project the folder ``edge_zofc/`` there would hide the installed package, without its ``export`` part.
(``python -P`` is the same cure, from Python 3.11 on.)
"""

from __future__ import annotations

import sys

_CODE = "import runpy, sys; sys.path.remove(''); name = sys.argv.pop(1); runpy.run_module(name, run_name='__main__')"


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs ``module`` as a program in this interpreter's environment."""
    return [sys.executable, "-c", _CODE, module, *arguments]
