"""Settings: declared once, read from environment, file and command line, handed out as frozen values."""

from aero_l2.config.forwards import ForwardRule
from aero_l2.config.load import Loaded, load
from aero_l2.config.settings import Settings
from aero_l2.config.sources import Sources, gather, reread
from aero_l2.config.values import ListenAddress
from aero_l2.config.variable import Variable
from aero_l2.config.variables import THEMES, VARIABLES

__all__ = [
    "THEMES",
    "VARIABLES",
    "ForwardRule",
    "ListenAddress",
    "Loaded",
    "Settings",
    "Sources",
    "Variable",
    "gather",
    "load",
    "reread",
]
