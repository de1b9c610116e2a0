"""Words of the connection's field ``gpu_hours_budget``."""

from __future__ import annotations

#: Whom a budget is for: ``dag:NAME``, and so on.
KINDS = ("dag", "user", "owner")
#: In the place of a name: each of them has a budget of that size.
EACH = "*"
#: The key of the budget of all jobs together.
ALL = "all"
REFUSE, WAIT = OVER_BUDGET = ("refuse", "wait")
