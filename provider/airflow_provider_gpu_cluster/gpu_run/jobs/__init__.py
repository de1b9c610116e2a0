"""Operations on jobs: submit, look, cancel."""
