"""The former name of `uaplib.metrics.segmentation`, for one more release."""

import warnings

from uaplib.metrics.segmentation import *  # noqa: F403

warnings.warn(
    "uaplib.segmentation has moved: `from uaplib.metrics import segmentation`", DeprecationWarning, stacklevel=2
)
