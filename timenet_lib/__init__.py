"""TimeNet: a one-step rectified flow and a timestep-perceptive network that find and localise defects."""

from importlib.metadata import version

from timenet_lib.errors import DataError, InputError, TimeNetError, WeightsError

__all__ = ["DataError", "InputError", "TimeNetError", "WeightsError", "__version__"]

__version__ = version("timenet_lib")
