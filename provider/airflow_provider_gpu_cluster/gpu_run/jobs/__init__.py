"""What is done with jobs: submit, look, cancel."""
