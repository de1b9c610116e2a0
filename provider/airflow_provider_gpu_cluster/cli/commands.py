"""What Airflow's command line has of this package. Each of its commands reads this, so it imports next to nothing."""

from __future__ import annotations

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command

_CONN_ID: Arg = Arg(  # type: ignore[no-untyped-call]
    ("--conn-id",),
    action="append",
    help="connection of a cluster whose ledger to read; can be given several times (default: all that can be found)",
)


def commands() -> list[CLICommand]:
    """Return the commands."""
    rebuild = ActionCommand(
        name="rebuild-jobs",
        help="Fill the table of all GPU jobs anew",
        description=(
            "Fill the table of all GPU jobs from what launches have left in Airflow and from the clusters' ledgers. "
            "What the table knows already stays, and to run this again changes nothing."
        ),
        func=lazy_load_command("airflow_provider_gpu_cluster.cli.rebuild_jobs.rebuild_jobs"),
        args=(_CONN_ID,),
    )
    return [GroupCommand(name="gpu-cluster", help="Manage GPU jobs", subcommands=(rebuild,))]
