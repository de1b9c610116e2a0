"""What systemd does to processes at logout, from files as logind.conf(5) orders them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.linux import logout, processes

MAIN = "etc/systemd/logind.conf"
ETC, RUN, USR = (f"{folder}/systemd/logind.conf.d" for folder in ("etc", "run", "usr/lib"))
YES, NO = "KillUserProcesses=yes", "KillUserProcesses=no"
BY_MAIN = "KillUserProcesses=yes in /etc/systemd/logind.conf"


def by(path: str) -> str:
    return f"KillUserProcesses=yes in /{path}"


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        pytest.param({}, None, id="no systemd"),
        pytest.param({MAIN: "#KillUserProcesses=yes"}, None, id="a comment"),
        pytest.param({MAIN: YES}, BY_MAIN, id="the main file"),
        pytest.param({MAIN: "KillUserProcesses = on"}, "KillUserProcesses=on in /etc/systemd/logind.conf", id="on"),
        pytest.param({MAIN: "KillUserProcesses=perhaps"}, None, id="no such value"),
        pytest.param({MAIN: f"{NO}\n[Other]\n{YES}"}, None, id="another section"),
        pytest.param({"usr/lib/systemd/logind.conf": YES}, by("usr/lib/systemd/logind.conf"), id="a vendor's file"),
        pytest.param({MAIN: "", "usr/lib/systemd/logind.conf": YES}, None, id="a vendor's file, replaced"),
        *(pytest.param({f"{folder}/a.conf": YES}, by(f"{folder}/a.conf"), id=folder) for folder in (ETC, RUN, USR)),
        pytest.param({MAIN: YES, f"{USR}/a.conf": NO}, None, id="a drop-in comes after the main file"),
        pytest.param({f"{ETC}/a.conf": NO, f"{RUN}/b.conf": YES}, by(f"{RUN}/b.conf"), id="sorted by name"),
        pytest.param({f"{ETC}/a.conf": NO, f"{USR}/a.conf": YES}, None, id="of one name, the nearest"),
        pytest.param({f"{ETC}/a.conf": None, f"{USR}/a.conf": YES}, None, id="masked"),
        pytest.param({f"{ETC}/a.conf~": YES}, None, id="an editor's copy"),
        pytest.param({MAIN: f"{YES}\nKillExcludeUsers=anna ben"}, None, id="excluded"),
        pytest.param(
            {MAIN: f"{YES}\nKillExcludeUsers=anna", f"{ETC}/a.conf": "KillExcludeUsers="}, BY_MAIN, id="reset"
        ),
        pytest.param({MAIN: f"{YES}\nKillOnlyUsers=ben"}, None, id="only others"),
        pytest.param(
            {MAIN: f"{NO}\nKillOnlyUsers=ben\nKillOnlyUsers=anna"},
            "KillOnlyUsers=ben anna in /etc/systemd/logind.conf",
            id="only these",
        ),
        pytest.param({MAIN: YES, "var/lib/systemd/linger/anna": ""}, None, id="lingers"),
    ],
)
def test_whose_processes_end_at_logout(
    files: Mapping[str, str | None], cause: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "user", lambda: "anna")
    lay(tmp_path, files)
    found = logout.logout_of_user(str(tmp_path))
    assert (found and found.cause) == cause
    assert found is None or not found.spares_user


@pytest.mark.parametrize(("more", "spared"), [("", True), ("\nKillExcludeUsers=", False)])
def test_root_is_spared_unless_somebody_says_otherwise(
    more: str, spared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "user", lambda: "root")
    lay(tmp_path, {MAIN: YES + more})
    found = logout.logout_of_user(str(tmp_path))
    assert found == logout.Logout(BY_MAIN, spared)
    assert ("except root's" in str(found)) is spared


def lay(folder: Path, files: Mapping[str, str | None]) -> None:
    """Make files of settings; None masks one of the same name elsewhere."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.symlink_to("/dev/null")
        else:
            path.write_text(f"[Login]\n{text}\n")
