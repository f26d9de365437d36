"""adv-lib imports visdom, a plotting server, for a logger that no test uses: an empty module stands in for it."""

import sys
import types

try:
    import visdom  # noqa: F401
except ImportError:
    sys.modules["visdom"] = types.ModuleType("visdom")
