"""Code from Git: the commit that was asked for, and no secret anywhere."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.staging import git, inputs
from airflow_provider_gpu_cluster.gpu_run.store.directories import JobDirectory, Root
from airflow_provider_gpu_cluster.sources import parse_sources
from tests.harness.small_disk import small_disk
from tests.servers import git as git_server

SECRET = "s3cr3t/@:%"
WRITTEN_SECRET = "s3cr3t%2F%40%3A%25"


@pytest.fixture(autouse=True)
def nobodys_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the configuration of whoever runs the tests out of them."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.delenv("GIT_SSL_CAINFO", raising=False)


@pytest.fixture
def repositories(tmp_path: Path) -> Path:
    """Return a folder with ``repo.git``: three commits, a branch, two tags, and ``lib.git``, its submodule."""
    folder = tmp_path / "repositories"
    work = folder / "work"
    lib = folder / "lib"
    for path in (work, lib):
        path.mkdir(parents=True)
        git_server.git(path, "init", "--quiet")
    (lib / "lib.py").write_text("lib")
    git_server.git(lib, "add", ".")
    git_server.git(lib, "commit", "-qm", "1")
    git_server.git(folder, "clone", "-q", "--bare", "lib", "lib.git")

    (work / "train.py").write_text("1")
    (work / "sub dir").mkdir()
    (work / "sub dir" / "x.sh").write_text("#!/bin/sh")
    (work / "sub dir" / "x.sh").chmod(0o755)
    (work / "out").symlink_to("/etc")
    git_server.git(work, "add", ".")
    git_server.git(work, "commit", "-qm", "1")
    git_server.git(work, "tag", "v1")
    (work / "train.py").write_text("2")
    git_server.git(work, "commit", "-qam", "2")
    git_server.git(work, "tag", "-a", "-m", "2", "v2")
    git_server.git(work, "checkout", "-qb", "feature/x")
    git_server.git(work, "submodule", "--quiet", "add", "../lib.git", "vendor")
    git_server.git(work, "commit", "-qm", "3")
    git_server.git(work, "checkout", "-q", "main")
    git_server.git(folder, "clone", "-q", "--bare", "work", "repo.git")
    return folder


@pytest.fixture
def job(tmp_path: Path) -> JobDirectory:
    job = Root(str(tmp_path / "root")).job("job")
    job.create()
    return job


def stage(job: JobDirectory, written: str) -> dict[str, Any]:
    """Stage code from git, and return what is noted about it."""
    (source,) = parse_sources(code=written, data=None, models=None, base_dir=Path("/"))
    assert inputs.stage(Root(os.path.dirname(job.path)), job, [source.to_json()]) == []
    noted: dict[str, Any] = json.loads(Path(job.at(".job", "inputs.json")).read_text())["code"]
    return noted


def refused(job: JobDirectory, written: str) -> str:
    before = sorted(os.listdir(job.at("code")))
    with pytest.raises(Refused) as caught:
        stage(job, written)
    assert caught.value.code == protocol.SOURCE_ERROR
    assert sorted(os.listdir(job.at("code"))) == before
    assert not [name for name in os.listdir(job.at(".job")) if name.startswith(("incoming", "replaced", "."))]
    return caught.value.message


def commit_of(repositories: Path, ref: str) -> str:
    return git_server.git(repositories / "repo.git", "rev-parse", f"{ref}^{{commit}}")


@pytest.mark.parametrize(
    ("ref", "content"),
    [("", "2"), ("@main", "2"), ("@v1", "1"), ("@v2", "2"), ("@feature/x", "2"), ("@refs/tags/v1", "1")],
)
@pytest.mark.parametrize("over", ["file", "http"])
def test_branches_and_tags(job: JobDirectory, repositories: Path, over: str, ref: str, content: str) -> None:
    with git_server.serve(repositories) as url:
        base = url if over == "http" else f"file://{repositories}"
        if (over, ref) == ("file", "@feature/x"):
            # git itself does not let a repository name others on the local disk as its submodules.
            assert "transport 'file' not allowed" in refused(job, f"git+{base}/repo.git{ref}")
            return
        noted = stage(job, f"git+{base}/repo.git{ref}")
    assert noted["commit"] == commit_of(repositories, ref[1:] or "HEAD")
    assert Path(job.at("code", "train.py")).read_text() == content
    assert not os.path.exists(job.at("code", ".git"))
    assert os.readlink(job.at("code", "out")) == "/etc"


def test_a_submodule_beside_the_repository(job: JobDirectory, repositories: Path) -> None:
    with git_server.serve(repositories, f"user:{SECRET}") as url:
        stage(job, f"git+{url.replace('//', f'//user:{WRITTEN_SECRET}@')}/repo.git@feature/x")
    assert Path(job.at("code", "vendor", "lib.py")).read_text() == "lib"
    assert not os.path.lexists(job.at("code", "vendor", ".git"))


def test_a_full_commit(job: JobDirectory, repositories: Path) -> None:
    first = commit_of(repositories, "v1")
    assert stage(job, f"git+file://{repositories}/repo.git@{first}")["commit"] == first
    assert Path(job.at("code", "train.py")).read_text() == "1"


def test_a_server_that_gives_a_commit_only_with_its_history(job: JobDirectory, repositories: Path) -> None:
    """The old protocol gives only what a branch or tag points to."""
    Path(os.environ["HOME"], ".gitconfig").write_text("[protocol]\n\tversion = 0\n")
    git_server.git(repositories / "repo.git", "tag", "-d", "v1")
    first = commit_of(repositories, "main~1")
    with git_server.serve(repositories) as url:
        assert stage(job, f"git+{url}/repo.git@{first}")["commit"] == first
        assert "could not fetch it" in refused(job, f"git+{url}/repo.git@{'0' * 40}")
    assert Path(job.at("code", "train.py")).read_text() == "1"


def test_a_part_of_a_repository(job: JobDirectory, repositories: Path) -> None:
    stage(job, f"git+file://{repositories}/repo.git@v1#subdirectory=sub%20dir")
    assert os.listdir(job.at("code")) == ["x.sh"]
    assert os.access(job.at("code", "x.sh"), os.X_OK)


@pytest.mark.parametrize("part", ["missing", "train.py", "out"])
def test_a_part_that_is_not_there(job: JobDirectory, repositories: Path, part: str) -> None:
    message = refused(job, f"git+file://{repositories}/repo.git#subdirectory={part}")
    assert message.endswith(f"there is no folder '{part}' in the repository")


def test_staging_again_asks_nobody(job: JobDirectory, repositories: Path) -> None:
    noted = stage(job, f"git+file://{repositories}/repo.git@main")
    (repositories / "repo.git").rename(repositories / "gone.git")
    assert stage(job, f"git+file://{repositories}/repo.git@main") == noted


def test_a_ref_that_is_not_there(job: JobDirectory, repositories: Path) -> None:
    message = refused(job, f"git+file://{repositories}/repo.git@nope")
    assert "no branch, tag or commit 'nope' in that repository" in message
    short = commit_of(repositories, "v1")[:8]
    assert "A commit is written with all its digits" in refused(job, f"git+file://{repositories}/repo.git@{short}")


@pytest.mark.parametrize("ref", ["--upload-pack=touch /tmp/evil", "-x", "--help"])
def test_what_looks_like_an_option_is_none(job: JobDirectory, repositories: Path, tmp_path: Path, ref: str) -> None:
    """The worker refuses such refs already; here they would have been sent all the same."""
    ref = ref.replace("/tmp/evil", str(tmp_path / "evil"))
    (tmp_path / "draft").mkdir()
    with pytest.raises(git.GitFailed, match="could not fetch it"):
        git.fetch(f"file://{repositories}/repo.git", ref, None, None, str(tmp_path / "draft"))
    (tmp_path / "another").mkdir()
    with pytest.raises(git.GitFailed):
        git.fetch(f"--upload-pack=touch {tmp_path}/evil", "main", None, None, str(tmp_path / "another"))
    assert not (tmp_path / "evil").exists()


def test_a_repository_that_is_not_there(job: JobDirectory, repositories: Path) -> None:
    assert "does not appear to be a git repository" in refused(job, f"git+file://{repositories}/nope.git")
    assert "Failed to connect" in refused(job, "git+http://127.0.0.1:1/nope.git")


def test_a_private_repository(
    job: JobDirectory,
    repositories: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[list[str]] = []
    real = subprocess.run

    def run(command: list[str], **options: Any) -> Any:
        seen.append(command)
        return real(command, **options)

    monkeypatch.setattr(subprocess, "run", run)
    with git_server.serve(repositories, f"user:{SECRET}") as url:
        assert "wants credentials: put them into the URL" in refused(job, f"git+{url}/repo.git")
        wrong = refused(job, f"git+{url.replace('//', '//user:wr0ng@')}/repo.git")
        assert "wants credentials" in wrong
        assert "wr0ng" not in wrong
        noted = stage(job, f"git+{url.replace('//', f'//user:{WRITTEN_SECRET}@')}/repo.git@v1")
    assert noted["commit"] == commit_of(repositories, "v1")
    assert noted["written"] == f"git+{url}/repo.git@v1"
    for where, _, files in os.walk(tmp_path):
        for name in files:
            content = Path(where, name).read_bytes()
            assert b"s3cr3t" not in content
            assert b"wr0ng" not in content
    assert seen
    assert "s3cr3t" not in json.dumps(seen)
    assert "s3cr3t" not in "".join(capfd.readouterr())


def test_a_login_goes_to_its_own_host_only(repositories: Path, tmp_path: Path) -> None:
    """A submodule on another server must not get it."""
    with git_server.serve(repositories, "user:pw") as theirs, git_server.serve(repositories) as ours:
        work = repositories / "work"
        git_server.git(work, "checkout", "-q", "feature/x")
        git_server.git(work, "config", "-f", ".gitmodules", "submodule.vendor.url", f"{theirs}/lib.git")
        git_server.git(work, "commit", "-qam", "elsewhere")
        git_server.git(work, "push", "-q", str(repositories / "repo.git"), "feature/x")
        (tmp_path / "draft").mkdir()
        with pytest.raises(git.GitFailed, match="could not fetch it"):
            git.fetch(f"{ours}/repo.git", "feature/x", None, "user:pw", str(tmp_path / "draft"))


def test_no_git_on_the_cluster(job: JobDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "there is no git on the cluster; install it" in refused(job, "git+https://host/repo.git")


def test_a_full_disk(tmp_path: Path, repositories: Path) -> None:
    (repositories / "work" / "big").write_bytes(os.urandom(1 << 20))
    git_server.git(repositories / "work", "add", ".")
    git_server.git(repositories / "work", "commit", "-qm", "big")
    git_server.git(repositories / "work", "push", "-q", str(repositories / "repo.git"), "main")
    with small_disk(tmp_path / "disk", 900) as disk:
        job = Root(str(disk)).job("job")
        job.create()
        with pytest.raises(Refused, match="no space left on the disk") as caught:
            stage(job, f"git+file://{repositories}/repo.git")
        assert caught.value.code == protocol.NO_SPACE
        assert os.listdir(job.at("code")) == []
