"""
Tests in a real browser: headless Chromium looks at the pages of one real Airflow, whose cluster is a sandbox.

A package, so that both end with its last test: while Playwright runs, its event loop is that of the whole thread.
"""
