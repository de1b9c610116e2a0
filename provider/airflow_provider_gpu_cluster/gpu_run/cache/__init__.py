"""What jobs are given, kept once for all of them: contents by their SHA-256, in full or still arriving."""
