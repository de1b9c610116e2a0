# The cluster's default Python, of any version, reads this file, so it must parse there: no annotations, no f-strings.
"""Entry point: find a new enough Python, unpack the program once so that it starts quickly, and run it."""

import gc
import os
import sys

OLDEST = (3, 8)
NEWER = ["python3.{}".format(minor) for minor in range(14, 7, -1)]


def find_newer():
    for folder in os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(":"):
        for name in NEWER:
            path = os.path.join(folder, name)
            if os.access(path, os.X_OK) and runs(path):
                return path
    return None


def runs(path):
    """Return whether an interpreter starts: pyenv puts some into the PATH that only say that they are missing."""
    import subprocess

    with open(os.devnull, "r+") as nothing:
        return subprocess.call([path, "-c", ""], stdin=nothing, stdout=nothing, stderr=nothing) == 0


def unpack(archive):
    """
    Return a folder with the archive's content, next to the archive and with its name.

    Python caches compiled modules only for files in folders; from the archive itself, every start would compile
    everything again. The folder appears by rename, so that every process sees it complete.
    """
    folder = os.path.splitext(archive)[0]
    if not os.path.isdir(folder):
        import shutil
        import tempfile
        import zipfile

        draft = None
        try:
            draft = tempfile.mkdtemp(prefix=os.path.basename(folder) + ".", dir=os.path.dirname(folder))
            with zipfile.ZipFile(archive) as content:
                content.extractall(draft)
            os.rename(draft, folder)
        except OSError:
            if draft is not None:
                shutil.rmtree(draft, ignore_errors=True)
            if not os.path.isdir(folder):
                return archive
    return folder


def start():
    archive = os.path.realpath(sys.argv[0])
    if sys.version_info < OLDEST:
        newer = find_newer()
        if newer:
            os.execv(newer, [newer, "-I", "-S", archive] + sys.argv[1:])
        message = (
            "Python {}.{} on the cluster is too old: {}. gpu-run needs 3.8 or newer; set 'python' in the connection "
            "to the path of a newer interpreter on the cluster."
        ).format(sys.version_info[0], sys.version_info[1], sys.executable)
        import json

        # Literals from protocol.py, which this old Python may not be able to import.
        error = json.dumps({"error": {"code": "python_too_old", "message": message}})
        sys.stdout.write("\x1e gpu-run 1 \x1e\n" + error + "\n")
        return 0
    if os.path.isfile(archive):
        sys.path[0] = unpack(archive)
    # What modules consist of stays; to look for garbage among it makes the start an eighth longer.
    gc.disable()
    from gpu_run.command_line import main

    return main(archive, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(start())
