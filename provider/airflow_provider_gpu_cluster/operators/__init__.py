"""What a DAG author writes: stage, submit, collect, cancel."""
