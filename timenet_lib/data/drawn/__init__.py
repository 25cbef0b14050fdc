"""The embedded data set: small parts and surfaces drawn by code, with defects and their exact masks."""

from .canvas import VERSION
from .catalogue import CLASSES, KINDS
from .draw import FAMILY_NAMES, draw_defective, draw_normal, draw_texture
from .writer import drawn_folder, write_drawn

__all__ = [
    "CLASSES",
    "FAMILY_NAMES",
    "KINDS",
    "VERSION",
    "draw_defective",
    "draw_normal",
    "draw_texture",
    "drawn_folder",
    "write_drawn",
]
