"""
Copy third-party files, such as the chart library of the pages, out of their registry packages.

``python scripts/copy_third_party.py`` does so, and needs npm; nobody else does. Versions and checksums of the packages
are those of ``scripts/third_party/package-lock.json``. What was copied is written down in ``files.json`` beside it, by
which a test sees that nobody has changed a file.

To take a newer version: change it in ``scripts/third_party/package.json``, run ``npm install --package-lock-only``
there, and then this; the folder of the earlier version is removed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
HERE = REPOSITORY / "scripts" / "third_party"
FOLDER = "provider/airflow_provider_gpu_cluster/plugins/ui/third_party"


class Copied(NamedTuple):
    """
    A file of a package.

    :param package: its name in the registry.
    :param source: path of the file in the package.
    :param name: its name in the folder ``<package>-<version>`` here.
    :param ending: text to add at its end.
    """

    package: str
    source: str
    name: str
    ending: str = ""


FILES = (
    Copied("htm", "LICENSE", "LICENSE"),
    Copied("htm", "dist/htm.module.js", "htm.js"),
    Copied("uplot", "LICENSE", "LICENSE"),
    # Its module is three times as large, as only the script is minified. With this ending the script is a module.
    Copied("uplot", "dist/uPlot.iife.min.js", "uplot.js", "export default uPlot;\n"),
    Copied("uplot", "dist/uPlot.min.css", "uplot.css"),
)


def main() -> None:
    """Replace all third-party files by those of the packages."""
    packages = locked()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / name, folder)
        # It checks what it gets by the checksums of the lock.
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True)
        shutil.rmtree(REPOSITORY / FOLDER)
        record = [_copy(Path(folder, "node_modules"), one, packages[one.package]) for one in FILES]
    (HERE / "files.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def locked() -> dict[str, dict[str, Any]]:
    """Return version, checksum and licence of each package, by its name, as the lock has them."""
    lock = json.loads((HERE / "package-lock.json").read_text(encoding="utf-8"))
    return {path.removeprefix("node_modules/"): entry for path, entry in lock["packages"].items() if path}


def _copy(modules: Path, one: Copied, entry: dict[str, Any]) -> dict[str, str]:
    path = Path(FOLDER, f"{one.package}-{entry['version']}", one.name)
    content = (modules / one.package / one.source).read_bytes() + one.ending.encode()
    (REPOSITORY / path).parent.mkdir(parents=True, exist_ok=True)
    (REPOSITORY / path).write_bytes(content)
    facts = {"path": path.as_posix(), "package": one.package, "version": entry["version"], "license": entry["license"]}
    of_package = {"package_integrity": entry["integrity"], "source": one.source, "ending": one.ending}
    return {**facts, **of_package, "integrity": integrity(content)}


def integrity(content: bytes) -> str:
    """Return the checksum of a file in the form of a lock's."""
    return f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"


if __name__ == "__main__":
    main()
