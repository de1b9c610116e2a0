"""What both sides of a transfer of outputs agree on: sizes, and the one fault that another try may repair."""

from __future__ import annotations

# Files below this size are sent whole; larger ones can be sent from any byte on.
SMALL = 1 << 20
PIECE = 1 << 20
# A limit, so that neither side is silent for long while it computes the checksum of zeros.
MAX_ZEROS = 1 << 30
MAX_BATCH_FILES = 256
MAX_BATCH_BYTES = 2 * SMALL

# The kind of the folder of outputs where it is carried to another cluster, beside the kinds of inputs.
OUTPUTS = "outputs"

CHANGED = "changed while it was being collected"
