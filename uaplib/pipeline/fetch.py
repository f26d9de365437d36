"""Getting a data set from Debian's archive without root, for machines that reach no other source."""

import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from uaplib.files import write_atomically


def fetch_with_apt(package: str, inside: Path, folder: Path) -> bool:
    """Download a Debian package, unpack it, and move the files it has under `inside` into `folder`.

    Returns False where there is no apt, or where it does not find the package.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        return False
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(["apt-get", "update", "-qq"], check=False)  # needs root; without, the lists at hand must do
        if subprocess.run(["apt-get", "download", "-qq", package], cwd=temporary, check=False).returncode:
            return False
        (archive,) = Path(temporary).glob("*.deb")
        subprocess.run(["dpkg", "-x", str(archive), temporary], check=True)
        for file in (Path(temporary) / inside.relative_to("/")).iterdir():
            write_atomically(folder / file.name, partial(shutil.copyfile, file))
    return True
