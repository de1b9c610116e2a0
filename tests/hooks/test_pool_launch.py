"""Jobs that the hook of a pool launches, on real clusters."""

from __future__ import annotations

import pytest

from airflow_provider_gpu_cluster.exceptions import NoClusterFitsError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook


def test_a_job_goes_where_it_fits_and_is_found_there_again(lab: list[str]) -> None:
    with GpuClusterHook("lab") as hook:
        large = hook.submit(job_id="large", command="true", gpus=4)
        assert large["gpu_cluster_conn_id"] == "gpu01"
        small = hook.submit(job_id="small", command="sleep 30", gpus=2)
        assert small["gpu_cluster_conn_id"] == "gpu02"
        assert hook.submit(job_id="small", command="sleep 30", gpus=2) == small
        with pytest.raises(NoClusterFitsError, match="gpu01: .*\n  gpu02: "):
            hook.submit(job_id="giant", command="true", gpus=5)
        assert [attempt["act"] for attempt in hook.audit(small)].count("submit") == 1
        hook.cancel(small)
