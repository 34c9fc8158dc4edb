"""edge-zofc: keep learning new classes on a small computer with the memory of inference.

Importing this package switches off onnxruntime's telemetry. Its wheels from 1.32 on otherwise open a data base of some
megabytes in ~/.cache when they are imported and run a thread that sends it to Microsoft.
"""

import os

# Before anything can import onnxruntime. Whoever wants the telemetry sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
