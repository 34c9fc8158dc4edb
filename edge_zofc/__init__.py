"""edge-zofc: keep learning new classes on a small computer with the memory of inference.

The device runtime. ``learn.py`` is the loop; ``errors.py`` the errors; ``bundle.py`` what export hands over.
"""

__version__ = "0.1.0"
