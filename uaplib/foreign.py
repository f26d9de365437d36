"""Arrays in other people's files, as they are there: NumPy, MATLAB, PyTorch, safetensors, HDF5 and PNG.

Nothing is unpickled but tensors. Where a file holds several arrays, the only one of a usual name is taken, or none.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uaplib.names import check_name

USUAL = ("r", "v", "delta", "perturbation", "uap")  # names of the array, where there are others beside it


def array(path: str | Path) -> np.ndarray:
    """Return the one array of a file, floating point, and as integers 0 ... 255 from PNG.

    .npy and .npz; .mat, also of version 7.3; .h5 and .hdf5; .pt and .pth, one tensor, alone or in a dictionary;
    .safetensors; .png. Files of HDF5, .mat of version 7.3 among them, need h5py and give the axes in its order, which
    is MATLAB's reversed.

    Raises FileNotFoundError when there is no such file, ValueError when it cannot be read, or holds several arrays or
    something else, ImportError where h5py is needed and missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no perturbation at {path}")
    kind = check_name("ending", path.suffix.lower(), _READERS)
    try:
        values = _READERS[kind](path)
    except (ImportError, FileNotFoundError):
        raise
    except _SeveralError as error:
        raise ValueError(
            f"{path} holds several arrays, {error}; the one that counts must be called one of: {', '.join(USUAL)}"
        ) from None
    except Exception as error:  # each library has errors of its own
        raise ValueError(f"{path} cannot be read as a perturbation in a file of {PROGRAMS[kind]}") from error
    if not (isinstance(values, np.ndarray) and (np.issubdtype(values.dtype, np.floating) or kind == ".png")):
        kind = getattr(values, "dtype", type(values).__name__)
        raise ValueError(f"{path} does not hold one array of floating-point numbers, but {kind}")
    return values


def _numpy(path: Path) -> np.ndarray:
    found = np.load(path, allow_pickle=False)
    return found if isinstance(found, np.ndarray) else _one(found)


def _matlab(path: Path) -> np.ndarray:
    from scipy.io import loadmat  # slow to import

    try:
        found = loadmat(path)
    except NotImplementedError:  # version 7.3 is HDF5
        return _hdf5(path)
    return _one({name: value for name, value in found.items() if not name.startswith("__")})


def _torch(path: Path) -> np.ndarray:
    found = torch.load(path, map_location="cpu", weights_only=True)
    return _of_tensor(_one(found) if isinstance(found, Mapping) else found)


def _safetensors(path: Path) -> np.ndarray:
    from safetensors.torch import load_file

    return _of_tensor(_one(load_file(path)))


def _of_tensor(tensor: torch.Tensor) -> np.ndarray:
    """As numpy has it, which knows no bfloat16."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _hdf5(path: Path) -> np.ndarray:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{path} is a file of HDF5, and h5py is not installed: pip install h5py") from error
    with h5py.File(path) as file:
        return _one({name: value for name, value in file.items() if isinstance(value, h5py.Dataset)})[()]


def _png(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as picture:
        if picture.mode not in ("RGB", "P"):
            raise ValueError(f"mode {picture.mode}")
        return np.array(picture.convert("RGB"))


class _SeveralError(Exception):
    """Several arrays, of which none or more than one has a usual name."""


def _one(values: Mapping[str, Any]) -> Any:
    names = list(values.keys())  # numpy's archives are no whole mappings
    if len(names) > 1:
        usual = [name for name in names if name in USUAL]
        if len(usual) != 1:
            raise _SeveralError(", ".join(names))
        names = usual
    (name,) = names
    return values[name]


_FILES: dict[str, tuple[str, Callable[[Path], np.ndarray]]] = {
    ".npy": ("NumPy", _numpy),
    ".npz": ("NumPy", _numpy),
    ".mat": ("MATLAB", _matlab),
    ".pt": ("PyTorch", _torch),
    ".pth": ("PyTorch", _torch),
    ".safetensors": ("safetensors", _safetensors),
    ".h5": ("HDF5", _hdf5),
    ".hdf5": ("HDF5", _hdf5),
    ".png": ("PNG", _png),
}
PROGRAMS = {ending: program for ending, (program, _) in _FILES.items()}
_READERS = {ending: reader for ending, (_, reader) in _FILES.items()}
