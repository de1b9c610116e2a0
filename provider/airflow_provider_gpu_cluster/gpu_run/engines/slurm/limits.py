"""The limits of Slurm on how many jobs may be submitted: how to ask for them, and how much room they leave."""

from __future__ import annotations

import re
from typing import Collection, NamedTuple

# What sbatch says when a limit is reached; the kind of Slurm's records that has it; its name there, and in sacctmgr.
_LIMITS = (
    ("QOSMaxSubmitJobPerUser", "QOS", "MaxSubmitJobsPU", "MaxSubmitJobsPerUser"),
    ("QOSMaxSubmitJobPerAcc", "QOS", "MaxSubmitJobsPA", "MaxSubmitJobsPerAccount"),
    ("QOSGrpSubmitJob", "QOS", "GrpSubmitJobs", "GrpSubmitJobs"),
    ("AssocMaxSubmitJob", "Account", "MaxSubmitJobs", "MaxSubmitJobs"),
    ("AssocGrpSubmitJob", "Account", "GrpSubmitJobs", "GrpSubmitJobs"),
)


class Limit(NamedTuple):
    """
    A limit on the number of jobs.

    :param name: such as ``MaxSubmitJobsPerUser=3``.
    :param where: where it is set, in words.
    :param most: how many it allows.
    :param used: how many there are.
    """

    name: str
    where: str
    most: int
    used: int

    @property
    def room(self) -> int:
        """How many more it allows now."""
        return max(0, self.most - self.used)


def known(user: str) -> list[str]:
    """Return the command that lists a user's limits, and how far they are used."""
    return ["scontrol", "--oneliner", "show", "assoc_mgr", f"users={user}", "flags=assoc,qos"]


def reached(errors: str, output: str, *, account: str | None, qualities: Collection[str]) -> list[Limit]:
    """
    Return the limits that sbatch means; an empty list when that cannot be told.

    :param errors: what it has said.
    :param output: of :func:`known`.
    :param account: that the job asks for; None for the user's own.
    :param qualities: the names of the QOS that may hold for the job; empty when they are not known.
    """
    for sign, kind, key, name in _LIMITS:
        if sign not in errors:
            continue
        if kind == "QOS":
            records = [
                (f"the QOS {quality}", line)
                for quality, line in _records(output, r"QOS=([^(\s]+)\(")
                if not qualities or quality in qualities
            ]
        else:
            records = _associations(output, account)
        found = []
        for where, line in records:
            values = re.search(rf"\b{key}=(\d+)\((\d+)\)", line)
            if values:
                most, used = map(int, values.groups())
                found.append(Limit(f"{name}={most}", where, most, used))
        is_certain = kind != "QOS" or qualities or len({limit.most for limit in found}) == 1
        return found if is_certain else []
    return []


def _associations(output: str, account: str | None) -> list[tuple[str, str]]:
    """Return the user's association with an account, and what lies above it."""
    lines = [line for _, line in _records(output, r"ClusterName=(\S+) ")]
    mine = [
        line
        for line in lines
        if _value(line, "UserName")
        and (_value(line, "Account") == account or not account)
        # Which account is the usual one, not all versions say.
        and (account or _value(line, "DefAssoc") != "No")
    ]
    found = [("your association with the account {}".format(_value(line, "Account")), line) for line in mine[:1]]
    above = _value(mine[0], "Account") if mine else ""
    while above:
        line = next((line for line in lines if not _value(line, "UserName") and _value(line, "Account") == above), "")
        lines = [other for other in lines if other is not line]
        found.append((f"the account {above}", line))
        above = _value(line, "ParentAccount")
    return found


def _records(output: str, pattern: str) -> list[tuple[str, str]]:
    matches = [(re.match(pattern, line), line) for line in output.splitlines()]
    return [(match.group(1), line) for match, line in matches if match]


def _value(line: str, name: str) -> str:
    """Return a value without the number that may follow it: ``root(0)``."""
    match = re.search(rf"(?:^|\s){name}=([^\s(]*)", line)
    return match.group(1) if match else ""
