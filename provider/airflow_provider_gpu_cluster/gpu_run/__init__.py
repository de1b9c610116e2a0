"""The program that runs on the cluster: Python 3.8 or newer, standard library only, nothing installed.

It is shipped as one zip file named after the hash of its content, and called once per operation over SSH, with JSON on
its standard input and output (see :mod:`.protocol`). This package imports nothing from the rest of the provider.
"""
