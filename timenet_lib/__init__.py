"""TimeNet: a one-step rectified flow and a timestep-perceptive network that find and localise defects."""

import os
from importlib.metadata import version

from timenet_lib.errors import DataError, InputError, TimeNetError, WeightsError

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reports its use, beyond Python's sockets, otherwise

__all__ = ["DataError", "InputError", "TimeNetError", "WeightsError", "__version__"]

__version__ = version("timenet_lib")
