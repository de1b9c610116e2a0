"""
Bring inputs into a job's directory: from contents that the worker has sent, with git, or from a path on the cluster.

Each input is completed in a folder of its own under ``.job`` and then renamed into place. ``.job/inputs.json`` notes
what is in place, so that staging again brings in only what is missing or has changed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Collection, Iterator, cast

from .. import protocol
from ..errors import Refused
from ..linux import locks, regular_files
from ..linux.paths import is_really_within, is_within
from ..protocol.files import OUTPUTS
from ..store import records
from ..store.directories import JobDirectory, Root
from ..store.writing import no_space, remove_tree, write_text, writing

if TYPE_CHECKING:
    from ..cache.contents import Contents
    from ..protocol.inputs import ClusterInput, GitInput, Input, InputFacts, InputNotes, Row, UploadInput

_KINDS = ("code", "data", "models")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def stage(root: Root, job: JobDirectory, inputs: list[Input]) -> list[int]:
    """
    Bring in the inputs that the cluster has or can fetch by itself.

    :return: the numbers of the inputs that the worker has to send.
    :raises Refused: a source does not exist or cannot be read, or there is no room for it.
    """
    needs = []
    _remove_others(job, [_target(wanted) for wanted in inputs])
    for number, wanted in enumerate(inputs):
        if in_place(job, wanted):
            continue
        if wanted["type"] == "upload":
            if not bring_known(root, job, wanted):
                needs.append(number)
        elif wanted["type"] == "git":
            _clone(job, wanted)
        else:
            _take_from_cluster(job, wanted)
    return needs


def link_all(job: JobDirectory, linked: list[ClusterInput]) -> None:
    """Link data and models that are to be on the cluster."""
    for wanted in linked:
        if not in_place(job, wanted):
            _take_from_cluster(job, wanted)


def bring_known(root: Root, job: JobDirectory, wanted: UploadInput) -> bool:
    """Bring in an upload if all its contents are here; return False if one is missing."""
    # Imported late: most submits do without it, and each of them starts a process.
    from ..cache.contents import Contents

    contents = Contents(root)
    rows = contents.manifest(wanted["digest"])
    return rows is not None and bring(job, contents, wanted, rows)


def bring(
    job: JobDirectory, contents: Contents, wanted: UploadInput, rows: list[Row], checked: Collection[str] = ()
) -> bool:
    """
    Make an upload out of contents that are on the cluster, and put it in place.

    :param rows: the rows of the upload, see :mod:`.staging.placing`.
    :param checked: the SHA-256 of contents that need not be hashed again.
    :return: False when a content is not here, or was damaged; then nothing is put in place.
    """
    from . import placing
    from .replaced_folder import ReplacedFolder

    with writing(job.path), _draft(job) as draft:
        folder = os.path.join(draft, "content")
        os.mkdir(folder)
        try:
            # What an attempt has left in its outputs is kept with it as it is.
            replaced = None if wanted["kind"] == OUTPUTS else ReplacedFolder(job.at(_target(wanted)))
            files = placing.place(contents, rows, folder, checked, replaced)
        except placing.Missing:
            return False
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise Refused(
                    protocol.NO_SPACE, "{}: {}".format(wanted["written"], no_space(job.path, error))
                ) from error
            raise _no_source(wanted, f"the cluster cannot store {error.filename!r}: {error.strerror}") from error
        ready = os.path.join(folder, wanted["name"]) if wanted["single_file"] else folder
        if not os.path.lexists(ready):
            raise Refused(protocol.BAD_REQUEST, "{}: it has no file of that name".format(wanted["written"]))
        if wanted["kind"] == OUTPUTS:
            from .placed_outputs import put_outputs

            put_outputs(job, wanted, ready)
            return True
        size = sum(row[4] for row in rows if row[1] == "file")
        _publish(job, wanted, ready, {"files": len(files), "bytes": size}, checksums=files)
    return True


def take_over(job: JobDirectory, other: JobDirectory) -> None:
    """
    Bring in the inputs that another job has in place, as files of this job's own.

    :raises Refused: there is no room for them.
    """
    import shutil

    from ..linux import copying

    noted = _noted(other)
    _remove_others(job, list(noted))
    for target, facts in noted.items():
        if _is_noted(job, target, facts):
            continue
        with writing(job.path), _draft(job) as draft:
            source, ready = other.at(target), os.path.join(draft, "content")
            if os.path.islink(source):
                os.symlink(os.readlink(source), ready)
            elif os.path.isdir(source):
                try:
                    shutil.copytree(source, ready, symlinks=True, copy_function=copying.copy_file)
                except shutil.Error as error:
                    _raise_lack_of_space(error)
                    raise
            else:
                copying.copy_file(source, ready)
            checksums = facts.get("checksums")
            keep = None if checksums is None else partial(_take_checksums, job, other, checksums)
            _put_in_place(job, target, ready, facts, keep)


def bytes_of(job: JobDirectory) -> int:
    """Return the size of the inputs that a job has in place, as far as known."""
    return sum(facts.get("bytes", 0) for facts in _noted(job).values())


# -- inputs in place ---------------------------------------------------------------------------------------------


def in_place(job: JobDirectory, wanted: Input) -> bool:
    """Return whether exactly this input is in place."""
    return _is_noted(job, _target(wanted), _facts(wanted))


def _is_noted(job: JobDirectory, target: str, facts: InputFacts) -> bool:
    """Return whether an input is in place with that identity and, if given, that commit."""
    noted = _noted(job).get(target)
    if noted is None or not os.path.lexists(job.at(target)):
        return False
    is_same = noted.get("identity") == facts["identity"]
    return is_same and ("commit" not in facts or noted.get("commit") == facts["commit"])


def _noted(job: JobDirectory) -> InputNotes:
    noted: InputNotes | None = records.read_json(job.at(".job", "inputs.json"), records.MOST_BYTES_OF_LISTS)
    return noted or {}


def _note(job: JobDirectory, noted: InputNotes) -> None:
    records.write_json(job.at(".job", "inputs.json"), noted)


def _target(wanted: Input) -> str:
    kind, name = wanted["kind"], wanted["name"]
    if (kind, name) == (OUTPUTS, ""):
        return kind
    if kind not in _KINDS or "/" in name or "\0" in name or name in (".", ".."):
        raise Refused(protocol.BAD_REQUEST, f"an input cannot become {kind}/{name}")
    return os.path.join(kind, name).rstrip("/")


def _facts(wanted: Input) -> InputFacts:
    """Return what is to be noted of an input; what comes from another cluster is what it was there."""
    facts: InputFacts = {"identity": _identity(wanted), "written": wanted["written"]}
    return {**facts, **cast("InputFacts", wanted.get("facts", {}))}


def _identity(wanted: Input) -> list[Any]:
    return [wanted["type"]] + [wanted.get(name) for name in ("digest", "url", "ref", "subdirectory", "path")]


def _is_in_use(job: JobDirectory) -> bool:
    """Return whether an attempt waits or runs, so that its inputs must stay. Call under the job's lock."""
    attempts = job.attempts()
    return bool(attempts) and attempts[-1].ended() is None


def _publish(
    job: JobDirectory,
    wanted: Input,
    ready: str,
    facts: InputFacts,
    checksums: dict[str, str] | None = None,
) -> None:
    target = _target(wanted)
    facts = {**facts, **_facts(wanted)}
    keep = None if checksums is None else partial(_keep_checksums, job, target, checksums)
    _put_in_place(job, target, ready, facts, keep)


def _put_in_place(
    job: JobDirectory,
    target: str,
    ready: str,
    facts: InputFacts,
    keep_checksums: Callable[[], str] | None,
) -> None:
    """
    Rename a complete input into place, and note what it is.

    If another request has launched the job meanwhile, the job keeps its inputs; the next request learns that it runs.

    :param keep_checksums: writes the checksum of every file to a record, and returns the record's name.
    """
    with job.lock():
        if _is_noted(job, target, facts) or _is_in_use(job):
            return
        noted = _noted(job)
        if noted.pop(target, None) is not None:
            # If this process dies between here and the end, the note must not vouch for other content.
            _note(job, noted)
        if keep_checksums is not None:
            facts = {**facts, "checksums": keep_checksums()}
        os.makedirs(os.path.dirname(job.at(target)), exist_ok=True)
        with _put_away(job, [target]):
            os.rename(ready, job.at(target))
        noted[target] = {**facts, "at": records.now()}
        _note(job, noted)


def _keep_checksums(job: JobDirectory, target: str, checksums: dict[str, str]) -> str:
    """Write the checksums of an input's files to a record of their own, as there may be a million."""
    name = os.path.join(".job", "checksums", hashlib.sha256(os.fsencode(target)).hexdigest()[:16] + ".json")
    os.makedirs(job.at(".job", "checksums"), exist_ok=True)
    write_text(job.at(name), json.dumps({"input": target, "sha256": checksums}))
    return name


def _take_checksums(job: JobDirectory, other: JobDirectory, name: str) -> str:
    from ..linux import copying

    os.makedirs(job.at(".job", "checksums"), exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(job.at(name))
    copying.copy_file(other.at(name), job.at(name))
    return name


def _remove_others(job: JobDirectory, kept: list[str]) -> None:
    """Remove inputs that an earlier request brought in and this one does not want."""
    with job.lock():
        noted = _noted(job)
        others = [target for target in noted if target not in kept]
        if not others or _is_in_use(job):
            return
        with writing(job.path), _put_away(job, others):
            _note(job, {target: facts for target, facts in noted.items() if target in kept})
            for kind in _KINDS:
                os.makedirs(job.at(kind), exist_ok=True)


@contextlib.contextmanager
def _put_away(job: JobDirectory, targets: list[str]) -> Iterator[None]:
    """Rename targets out of the way, so that each vanishes in one step, and delete them afterwards."""
    old = job.at(".job", "replaced-" + records.new_name())
    os.mkdir(old, 0o700)
    try:
        for number, target in enumerate(targets):
            if os.path.lexists(job.at(target)):
                os.rename(job.at(target), os.path.join(old, str(number)))
        yield
    finally:
        remove_tree(old)


@contextlib.contextmanager
def _draft(job: JobDirectory) -> Iterator[str]:
    """
    Provide a folder in which to make an input.

    This process locks it until it exits. Folders that killed processes have left are deleted first.
    """
    _sweep(job)
    name = records.new_name()
    folder = job.at(".job", "incoming-" + name)
    unlocked = job.at(".job", "." + name)
    os.mkdir(unlocked, 0o700)
    with open(os.path.join(unlocked, "lock"), "w") as lock:
        try:
            locks.lock_file(lock.fileno())
            os.rename(unlocked, folder)
            yield folder
        finally:
            remove_tree(folder)


def _sweep(job: JobDirectory) -> None:
    for name in os.listdir(job.at(".job")):
        if name.startswith("incoming-"):
            folder = job.at(".job", name)
            with contextlib.suppress(OSError):
                fd = locks.lock(os.path.join(folder, "lock"), create=False)
                if fd is not None:
                    remove_tree(folder)
                    os.close(fd)


# -- git, and sources on the cluster -----------------------------------------------------------------------------


def _clone(job: JobDirectory, wanted: GitInput) -> None:
    from . import git

    with writing(job.path), _draft(job) as draft:
        try:
            folder, commit = git.fetch(
                wanted["url"], wanted.get("ref"), wanted.get("subdirectory"), wanted.get("credentials"), draft
            )
        except git.GitFailed as error:
            raise _no_source(wanted, str(error)) from error
        _publish(job, wanted, folder, {"commit": commit})


def source_on_cluster(wanted: ClusterInput) -> tuple[str, bool]:
    """
    Return the path of a source on the cluster, and whether it is a folder.

    :raises Refused: it does not exist, or cannot be read.
    """
    path = os.path.abspath(os.path.expanduser(wanted["path"]))
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        raise _no_source(wanted, f"{path} on the cluster: {error.strerror}") from error
    if not os.access(path, os.R_OK | os.X_OK if is_folder else os.R_OK):
        raise _no_source(wanted, f"{path} cannot be read by this user on the cluster")
    return path, is_folder


def _take_from_cluster(job: JobDirectory, wanted: ClusterInput) -> None:
    """Copy code, so that the job has its own; link data and models, which may be large."""
    path, is_folder = source_on_cluster(wanted)
    with writing(job.path), _draft(job) as draft:
        ready = os.path.join(draft, "content")
        if wanted["kind"] != "code":
            os.symlink(path, ready)
        elif not is_folder:
            os.mkdir(ready)
            _copy(wanted, path, os.path.join(ready, os.path.basename(path)))
        elif is_really_within(job.path, path):
            raise _no_source(wanted, f"{path} contains the job's own directory, so a copy of it has no end")
        else:
            _copy(wanted, path, ready)
            _make_independent(path, ready)
        _publish(job, wanted, ready, {"path": path})


def _copy(wanted: ClusterInput, path: str, target: str) -> None:
    import shutil

    try:
        if os.path.isdir(path):
            shutil.copytree(path, target, symlinks=True, copy_function=_copy_file)
        else:
            _copy_file(path, target)
    except shutil.Error as error:
        _raise_lack_of_space(error)
        failed, _, why = error.args[0][0]
        raise _no_source(wanted, f"{failed} could not be copied: {why}") from error
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise
        raise _no_source(wanted, f"{error.filename} could not be copied: {error.strerror}") from error


def _copy_file(source: str, target: str) -> None:
    import shutil

    # Reading from a pipe may never begin, and from a device never end.
    regular_files.check(os.stat(source), source)
    shutil.copy2(source, target)


def _raise_lack_of_space(error: OSError) -> None:
    """Raise again a lack of space that copying a folder met; its error keeps only the words of each failure."""
    for code in _NO_SPACE:
        if any(f"[Errno {code}]" in why for _, _, why in error.args[0]):
            raise OSError(code, os.strerror(code)) from error


def _make_independent(path: str, copy: str) -> None:
    """Let the job write to all of its copy, and keep relative links out of the original leading to the same places."""
    original = os.path.realpath(path)
    for where, folders, files in os.walk(copy):
        os.chmod(where, stat.S_IMODE(os.stat(where).st_mode) | 0o700)
        for name in folders + files:
            link = os.path.join(where, name)
            if os.path.islink(link) and not os.path.isabs(os.readlink(link)):
                target = os.path.realpath(os.path.join(original, os.path.relpath(link, copy)))
                if not is_within(target, original):
                    os.unlink(link)
                    os.symlink(target, link)


def _no_source(wanted: Input, message: str) -> Refused:
    return Refused(protocol.SOURCE_ERROR, "{} {}: {}".format(wanted["kind"], wanted["written"], message))
