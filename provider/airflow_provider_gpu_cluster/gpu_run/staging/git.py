"""One commit of a Git repository, without its history."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from urllib.parse import urlsplit

from ..linux.paths import is_within

_LINES = 12
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{4,63}")
# Passes the login to git in its environment, for one host only, so that no file and no process list shows it.
_LOGIN = """!f() { [ "$1" != get ] || printf 'username=%s\\npassword=%s\\n' "$GPU_RUN_USER" "$GPU_RUN_PASSWORD"; }; f"""

_WANTS_CREDENTIALS = (
    "terminal prompts disabled",
    "could not read Username",
    "Authentication failed",
    "Permission denied",
)


class GitFailed(Exception):
    """A repository could not be fetched; the message ends with git's own last lines."""


def fetch(url: str, ref: str | None, subdirectory: str | None, credentials: str | None, draft: str) -> tuple[str, str]:
    """
    Check out a commit, with its submodules.

    :param ref: branch, tag or full commit; None for the repository's own default.
    :param subdirectory: the folder of the repository to return; None for all of it.
    :param credentials: ``user:password`` for the host of an http URL. They are never written to a file.
    :param draft: an empty folder to work in.
    :return: the folder and the commit.
    :raises GitFailed: with the reason and what to do.
    :raises OSError: the disk is full.
    """
    git = shutil.which("git")
    if git is None:
        raise GitFailed("there is no git on the cluster; install it, or bring the code from the worker")
    wanted = ref or "HEAD"
    folder = os.path.join(draft, "checkout")
    options, env = _login(url, credentials)

    def run(*arguments: str) -> str:
        return _run([git, *options, "-C", folder, *arguments], env, ref)

    os.mkdir(folder)
    run("init", "--quiet")
    # Git looks for submodules with relative URLs, and for large files, beside "origin".
    run("remote", "add", "--", "origin", url)
    commit = "FETCH_HEAD"
    try:
        run("fetch", "--quiet", "--no-tags", "--depth", "1", "--", "origin", wanted)
    except GitFailed:
        # Some servers send a commit only as part of a history.
        if not _COMMIT.fullmatch(wanted):
            raise
        run("fetch", "--quiet", "--no-tags", "--", "origin", "+refs/*:refs/remotes/origin/*")
        commit = wanted
    run("-c", "advice.detachedHead=false", "checkout", "--quiet", commit)
    commit = run("rev-parse", "HEAD").strip()
    if os.path.exists(os.path.join(folder, ".gitmodules")):
        run("submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1")
    _remove_repository(folder)
    return _subdirectory(folder, subdirectory), commit


def _login(url: str, credentials: str | None) -> tuple[list[str], dict[str, str]]:
    env = dict(os.environ, GIT_TERMINAL_PROMPT="0", GIT_ASKPASS="true", GCM_INTERACTIVE="never", LC_ALL="C")
    # A server that sends nothing for a minute is not going to send anything.
    env.setdefault("GIT_HTTP_LOW_SPEED_LIMIT", "1")
    env.setdefault("GIT_HTTP_LOW_SPEED_TIME", "60")
    if not credentials:
        return [], env
    env["GPU_RUN_USER"], _, env["GPU_RUN_PASSWORD"] = credentials.partition(":")
    parts = urlsplit(url)
    return ["-c", "credential.helper=", "-c", f"credential.{parts.scheme}://{parts.netloc}.helper={_LOGIN}"], env


def _run(command: list[str], env: dict[str, str], ref: str | None) -> str:
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        said = "\n".join(done.stderr.decode("utf-8", "replace").strip().splitlines()[-_LINES:])
        if env.get("GPU_RUN_PASSWORD"):
            said = said.replace(env["GPU_RUN_PASSWORD"], "***")
        for code in (errno.ENOSPC, errno.EDQUOT):
            if os.strerror(code) in said:
                raise OSError(code, os.strerror(code))
        raise GitFailed(f"git on the cluster could not fetch it: {said}{_advice(said, ref)}")
    return done.stdout.decode("utf-8", "replace")


def _advice(said: str, ref: str | None) -> str:
    if "couldn't find remote ref" in said or "not our ref" in said:
        advice = f"\nThere is no branch, tag or commit {ref!r} in that repository."
        return advice + (" A commit is written with all its digits." if _SHORT_COMMIT.fullmatch(ref or "") else "")
    if "Host key verification failed" in said:
        return "\nThe cluster does not know that server's host key: add it to ~/.ssh/known_hosts on the cluster."
    if any(sign in said for sign in _WANTS_CREDENTIALS):
        return (
            "\nThe repository wants credentials: put them into the URL, from an Airflow connection so that nobody sees "
            "them (git+https://user:{{ conn.my_git.password }}@host/...), use git+ssh:// with a key on the cluster, or "
            "bring the code from the worker."
        )
    return ""


def _remove_repository(folder: str) -> None:
    """Remove git's own files, also those of submodules, which would point to a repository that is gone."""
    for where, folders, files in os.walk(folder):
        if ".git" in folders:
            shutil.rmtree(os.path.join(where, ".git"))
            folders.remove(".git")
        elif ".git" in files:
            os.unlink(os.path.join(where, ".git"))


def _subdirectory(folder: str, part: str | None) -> str:
    path = os.path.realpath(os.path.join(folder, part or "."))
    if not os.path.isdir(path) or not is_within(path, os.path.realpath(folder)):
        raise GitFailed(f"there is no folder {part!r} in the repository")
    return path
