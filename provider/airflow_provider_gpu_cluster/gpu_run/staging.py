"""
Inputs into a job's directory: from the worker as a stream, with git, or from a path that is on the cluster already.

Each input is made complete in a folder of its own under ``.job`` and then renamed into place. What is in place is
noted in ``.job/inputs.json``, so that staging again does only what is missing or has changed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
import uuid
from typing import Any, BinaryIO, Iterator
from urllib.parse import quote, urlsplit, urlunsplit

from . import frames, protocol, records
from .errors import Refused
from .store import JobDirectory, no_space, writing

_GIT_LINES = 12
_COMMIT_LENGTHS = (40, 64)


def stage(job: JobDirectory, inputs: list[dict[str, Any]]) -> list[int]:
    """
    Bring in what the cluster can fetch by itself.

    :return: the numbers of the inputs that the worker has to send.
    :raises Refused: a source does not exist or cannot be read.
    """
    needs = []
    for number, wanted in enumerate(inputs):
        if in_place(job, wanted):
            continue
        if wanted["type"] == "upload":
            needs.append(number)
        elif wanted["type"] == "git":
            with _draft(job) as draft:
                commit = _fetch(wanted, draft)
                _publish(job, wanted, _subdirectory(wanted, draft), {"commit": commit})
        else:
            _take_from_cluster(job, wanted)
    return needs


def receive(job: JobDirectory, wanted: dict[str, Any], stream: BinaryIO) -> dict[str, Any]:
    """
    Take one input from the worker.

    :return: how many files and bytes arrived.
    :raises Refused: they did not arrive as they were sent, or there is no room for them.
    """
    with writing(job.path), _draft(job) as draft:
        content = os.path.join(draft, "content")
        os.mkdir(content)
        try:
            files, size, digest = _receive_into(content, stream)
        except (frames.ChangedFile, frames.BrokenStream, ValueError) as error:
            raise Refused(protocol.CHECKSUM_MISMATCH, "{}: {}".format(wanted["written"], error)) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Refused(
                    protocol.NO_SPACE, "{}: {}".format(wanted["written"], no_space(job.path, error))
                ) from error
            raise
        if not wanted["digest"].startswith("etag:") and wanted["digest"] != digest:
            raise Refused(
                protocol.CHECKSUM_MISMATCH,
                "{}: a file changed between the moment its checksum was taken and the moment it was sent; "
                "nothing of it was kept, try again".format(wanted["written"]),
            )
        ready = os.path.join(content, wanted["name"]) if wanted["single_file"] else content
        if not os.path.lexists(ready):
            raise Refused(protocol.BAD_REQUEST, "{}: no file of that name arrived".format(wanted["written"]))
        _publish(job, wanted, ready, {"files": len(files), "bytes": size, "sha256": files})
    return {"files": len(files), "bytes": size}


def _receive_into(folder: str, stream: BinaryIO) -> Any:
    files: dict[str, str] = {}
    entries = []
    size = 0
    for header in frames.headers(stream):
        path = os.path.join(folder, frames.safe_path(header["path"]))
        parent = os.path.dirname(path)
        if parent != folder and os.path.realpath(parent) != os.path.join(
            os.path.realpath(folder), os.path.relpath(parent, folder)
        ):
            raise ValueError("{!r} lies behind a link".format(header["path"]))
        os.makedirs(parent, exist_ok=True)
        if header["kind"] == "dir":
            os.makedirs(path, exist_ok=True)
            entries.append([header["path"], "dir", 0o755, ""])
        elif header["kind"] == "link":
            if not frames.link_stays_inside(header["path"], header["target"]):
                raise ValueError("the link {!r} leaves its folder".format(header["path"]))
            os.symlink(header["target"], path)
            entries.append([header["path"], "link", 0o755, header["target"]])
        else:
            mode = 0o755 if header["mode"] & 0o100 else 0o644
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                files[header["path"]] = frames.read_file(stream, header, file.write)
            size += header["size"]
            entries.append([header["path"], "file", mode, files[header["path"]]])
    # The same sum as the worker has taken beforehand.
    digest = hashlib.sha256(json.dumps(sorted(entries), separators=(",", ":")).encode()).hexdigest()
    return files, size, digest


def in_place(job: JobDirectory, wanted: dict[str, Any]) -> bool:
    """Tell whether that very input is where it belongs."""
    noted = (records.read_json(job.at(".job", "inputs.json")) or {}).get(_target(wanted))
    return noted is not None and noted["identity"] == _identity(wanted) and os.path.lexists(job.at(_target(wanted)))


def _target(wanted: dict[str, Any]) -> str:
    target: str = os.path.join(wanted["kind"], wanted["name"])
    return target.rstrip("/")


def _identity(wanted: dict[str, Any]) -> list[Any]:
    return [wanted["type"]] + [wanted.get(name) for name in ("digest", "url", "ref", "subdirectory", "path")]


@contextlib.contextmanager
def _draft(job: JobDirectory) -> Iterator[str]:
    folder = job.at(".job", "incoming-" + uuid.uuid4().hex)
    os.mkdir(folder, 0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(job: JobDirectory, wanted: dict[str, Any], ready: str, facts: dict[str, Any]) -> None:
    """Rename a complete input into place, and note what it is."""
    target = job.at(_target(wanted))
    with job.lock():
        if in_place(job, wanted):
            return
        noted = records.read_json(job.at(".job", "inputs.json")) or {}
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.lexists(target):
            old = job.at(".job", "replaced-" + uuid.uuid4().hex)
            os.rename(target, old)
            os.rename(ready, target)
            shutil.rmtree(old, ignore_errors=True) if os.path.isdir(old) and not os.path.islink(old) else os.unlink(old)
        else:
            os.rename(ready, target)
        noted[_target(wanted)] = dict(facts, identity=_identity(wanted), written=wanted["written"], at=records.now())
        records.write_json(job.at(".job", "inputs.json"), noted)


# -- already on the cluster --------------------------------------------------------------------------------------


def _take_from_cluster(job: JobDirectory, wanted: dict[str, Any]) -> None:
    """Copy code, so that the job has it to itself; link data and models, which may be large."""
    path = os.path.abspath(os.path.expanduser(wanted["path"]))
    if not os.path.exists(path):
        raise _no_source(wanted, f"{path} does not exist on the cluster")
    if not os.access(path, os.R_OK):
        raise _no_source(wanted, f"{path} cannot be read by this user on the cluster")
    with writing(job.path), _draft(job) as draft:
        ready = os.path.join(draft, "content")
        try:
            if wanted["kind"] != "code":
                os.symlink(path, ready)
            elif os.path.isdir(path):
                shutil.copytree(path, ready, symlinks=True)
            else:
                os.mkdir(ready)
                shutil.copy2(path, ready)
        except shutil.Error as error:
            raise _no_source(wanted, f"it could not be copied: {error.args[0][0][2]}") from error
        if wanted["kind"] == "code" and wanted["name"] and not os.path.isdir(path):
            ready = os.path.join(ready, os.path.basename(path))
        _publish(job, wanted, ready, {"path": path})


# -- git ---------------------------------------------------------------------------------------------------------


def _fetch(wanted: dict[str, Any], draft: str) -> str:
    """Check out one commit without its history; return which one."""
    git = shutil.which("git")
    if git is None:
        raise _no_source(wanted, "there is no git on the cluster; install it, or bring the code from the worker")
    ref = wanted.get("ref") or "HEAD"
    url = wanted["url"]
    folder = os.path.join(draft, "checkout")

    def run(*arguments: str) -> str:
        return _git(git, wanted, draft, [*arguments])

    run("init", "--quiet", folder)
    fetched = ["-C", folder, "fetch", "--quiet", "--no-tags"]
    try:
        run(*fetched, "--depth", "1", url, ref)
    except Refused:
        # Some servers give a commit only as part of a history.
        if len(ref) not in _COMMIT_LENGTHS:
            raise
        run(*fetched, url, "+refs/*:refs/remotes/source/*")
        run("-C", folder, "update-ref", "FETCH_HEAD", ref)
    run("-C", folder, "-c", "advice.detachedHead=false", "checkout", "--quiet", "FETCH_HEAD")
    commit = run("-C", folder, "rev-parse", "HEAD").strip()
    if os.path.exists(os.path.join(folder, ".gitmodules")):
        run("-C", folder, "submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1")
    shutil.rmtree(os.path.join(folder, ".git"))
    return commit


def _git(git: str, wanted: dict[str, Any], draft: str, arguments: list[str]) -> str:
    env = dict(os.environ, GIT_TERMINAL_PROMPT="0", GIT_ASKPASS="true", GCM_INTERACTIVE="never", LC_ALL="C")
    env.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    secret = wanted.get("credentials")
    options = []
    if secret:
        # In a file of the draft, and so neither in a process list nor, later, on the disk.
        store = os.path.join(draft, "credentials")
        parts = urlsplit(wanted["url"])
        login = ":".join(quote(word, safe="") for word in secret.split(":", 1))
        with open(os.open(store, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(urlunsplit((parts.scheme, f"{login}@{parts.netloc}", "", "", "")) + "\n")
        options = ["-c", "credential.helper=", "-c", f"credential.helper=store --file={store}"]
    done = subprocess.run([git, *options, *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        said = "\n".join(done.stderr.decode("utf-8", "replace").strip().splitlines()[-_GIT_LINES:])
        if secret:
            said = said.replace(secret, "***").replace(secret.split(":", 1)[-1], "***")
        raise _no_source(wanted, f"git on the cluster could not fetch it: {said}{_advice(said, wanted)}")
    return done.stdout.decode("utf-8", "replace")


def _advice(said: str, wanted: dict[str, Any]) -> str:
    if "couldn't find remote ref" in said or "not our ref" in said:
        return "\nThere is no branch, tag or commit {!r} in that repository.".format(wanted.get("ref"))
    if any(
        sign in said
        for sign in (
            "terminal prompts disabled",
            "could not read Username",
            "Authentication failed",
            "Permission denied",
        )
    ):
        return (
            "\nThe repository wants credentials: write them in the URL (git+https://user:token@host/...; they are "
            "neither logged nor recorded), use git+ssh:// with a key on the cluster, or bring the code from the worker."
        )
    return ""


def _subdirectory(wanted: dict[str, Any], draft: str) -> str:
    folder = os.path.join(draft, "checkout")
    part = wanted.get("subdirectory")
    if not part:
        return folder
    path = os.path.realpath(os.path.join(folder, part))
    if not path.startswith(os.path.realpath(folder) + os.sep) or not os.path.isdir(path):
        raise _no_source(wanted, f"there is no folder {part!r} in the repository")
    return path


def _no_source(wanted: dict[str, Any], message: str) -> Refused:
    return Refused(protocol.SOURCE_ERROR, "{} {}: {}".format(wanted["kind"], wanted["written"], message))
