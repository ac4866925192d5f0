"""Settings: declared once, read from the environment, handed out as frozen values."""

from aero_l2.config.forwards import ForwardRule
from aero_l2.config.load import Loaded, load
from aero_l2.config.settings import VARIABLES, Settings, Variable
from aero_l2.config.values import ListenAddress

__all__ = ["VARIABLES", "ForwardRule", "ListenAddress", "Loaded", "Settings", "Variable", "load"]
