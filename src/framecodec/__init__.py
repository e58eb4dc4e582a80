"""Whole messages over byte streams: length-prefixed frames, in both directions."""

from __future__ import annotations

from .codec import Codec
from .errors import FrameError, IncompleteFrameError, InvalidFrameError, MessageTooLargeError
from .splitter import ACCELERATED, Splitter

__version__ = "0.1.0"
