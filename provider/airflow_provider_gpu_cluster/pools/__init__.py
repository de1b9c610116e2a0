"""Several clusters for one job: the pool, the choice among its members, and the promise that one of them runs it."""
