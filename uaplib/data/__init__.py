"""Data sets, one module each. Images are float32 tensors (N, C, H, W), RGB or grey, in [0, 1].

`DATASETS` has the modules by the data sets' names.
"""

from importlib import import_module

MODULES = {
    "fashion-mnist": "fashion_mnist",
    "imagenet-samples": "pictures",
    "camvid": "camvid",
    "scenes": "scenes",
    "depth-folders": "depth_folders",
}


def __dir__() -> list[str]:
    return [*globals(), "DATASETS", *MODULES.values()]


def __getattr__(name: str) -> object:
    """Import the modules, which need PyTorch, when they are first used: `uaplib list data` does without (PEP 562)."""
    if name == "DATASETS":
        return {data_set: import_module(f"{__name__}.{module}") for data_set, module in MODULES.items()}
    if name in MODULES.values():
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
