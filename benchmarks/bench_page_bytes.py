"""How many bytes of JavaScript all pages are together: what a browser gets, once for each version."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

from airflow_provider_gpu_cluster.plugins.ui_files import UI


class PageBytes(NamedTuple):
    """
    The size of some files.

    :param files: how many there are.
    :param plain: their bytes.
    :param gzipped: the same, each compressed by itself as a server sends it.
    """

    files: int
    plain: int
    gzipped: int


def page_bytes(suffix: str = ".js", below: str = "") -> PageBytes:
    """Return the size of the pages' files with a suffix, below a folder of them."""
    contents = [path.read_bytes() for path in sorted(Path(UI, below).rglob(f"*{suffix}"))]
    return PageBytes(len(contents), sum(map(len, contents)), sum(len(gzip.compress(one, 6)) for one in contents))


def main() -> None:
    """Print the sizes."""
    for name, size in (("all pages", page_bytes()), ("of these third-party", page_bytes(below="third_party"))):
        print(f"JavaScript, {name}: {size.files} files, {size.plain:,} bytes, gzipped {size.gzipped:,}")


if __name__ == "__main__":
    main()
