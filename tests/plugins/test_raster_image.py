"""Images are told by their content, with their size."""

from __future__ import annotations

import pytest

from airflow_provider_gpu_cluster.plugins.raster_image import raster_type, size_of

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xc0\0\x11\x08\0\x02\0\x03\x03\1\x22\0\2\x11\1\3\x11\1"


@pytest.mark.parametrize(
    ("data", "kind", "size"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\3\0\0\0\2\x08", "image/png", (3, 2)),
        (b"GIF89a\3\0\2\0\0\0\0;", "image/gif", (3, 2)),
        (JPEG, "image/jpeg", (3, 2)),
        (b"RIFF\x24\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\2\0\0\1\0\0", "image/webp", (3, 2)),
        (b"RIFF\x24\0\0\0WEBPVP8L\x0a\0\0\0\x2f\2\x40\0\0", "image/webp", (3, 2)),
        (b"RIFF\x24\0\0\0WEBPVP8 \x0a\0\0\0\0\0\0\x9d\1\x2a\3\0\2\0", "image/webp", (3, 2)),
        (b"\x89PNG\r\n\x1a\n", "image/png", None),
        (b"GIF89a", "image/gif", None),
        (b"\xff\xd8\xff" + b"\xff" * 100, "image/jpeg", None),
        (b"RIFF\x24\0\0\0WEBPxxxx", "image/webp", None),
        (b"<svg>", None, None),
        (b"BM", None, None),
        (b"", None, None),
    ],
)
def test_images(data: bytes, kind: str | None, size: tuple[int, int] | None) -> None:
    assert raster_type(data) == kind
    assert size_of(data) == size
