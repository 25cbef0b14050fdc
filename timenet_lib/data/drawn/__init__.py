"""The embedded data set: small parts and surfaces drawn by code, with defects and their exact masks."""

from .canvas import VERSION
from .draw import draw_texture
from .sources import FAMILY_NAMES
from .writer import drawn_folder, write_drawn

__all__ = ["FAMILY_NAMES", "VERSION", "draw_texture", "drawn_folder", "write_drawn"]
