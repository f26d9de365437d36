"""The former name of `uaplib.metrics.depth`, for one more release."""

import warnings

from uaplib.metrics.depth import *  # noqa: F403

warnings.warn("uaplib.depth has moved: `from uaplib.metrics import depth`", DeprecationWarning, stacklevel=2)
