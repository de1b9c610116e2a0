"""Jobs as values: parameters, request, handle, status, identity, progress; no input or output."""
