"""What a DAG author writes about a pool is checked at once, and understood as templates render it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, task
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.pools.placement_options import PlacementOptions, checked_policy, placement_options


def first(offers: Any) -> Any:
    return offers[0]


async def later(offers: Any) -> Any:
    return offers[0]


def submit(**arguments: Any) -> SubmitGpuJobOperator:
    return SubmitGpuJobOperator(task_id="train", command="true", **arguments)


def test_without_a_word_nothing_changes() -> None:
    operator = submit()
    assert operator.gpu_cluster_conn_id is None
    assert (operator.policy, operator.failover_after, operator.spread) == (None, None, False)
    assert operator.move_gain == timedelta(minutes=10)
    assert placement_options() == PlacementOptions()
    assert "policy" not in operator.template_fields


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"policy": " cheapest "}, {"policy": "cheapest"}),
        ({"policy": "None"}, {"policy": None}),
        ({"policy": first}, {"policy": first}),
        ({"policy": max}, {"policy": max}),
        ({"failover_after": timedelta(minutes=10)}, {"failover_after_s": 600.0}),
        ({"failover_after": "0:10:00"}, {"failover_after_s": 600.0}),
        ({"failover_after": 30}, {"failover_after_s": 30.0}),
        ({"move_gain": None}, {"move_gain_s": None}),
        ({"move_gain": 0}, {"move_gain_s": 0.0}),
        ({"spread": "True"}, {"spread": True}),
    ],
)
def test_what_is_written_is_understood(written: dict[str, Any], meant: dict[str, Any]) -> None:
    assert placement_options(**written) == PlacementOptions(**meant)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"gpu_cluster_conn_id": []}, "gpu_cluster_conn_id is an empty list; name at least one connection"),
        ({"gpu_cluster_conn_id": ["a", "b", "a"]}, "gpu_cluster_conn_id names a more than once; name each cluster"),
        ({"gpu_cluster_conn_id": ["a", ["b"]]}, "is not valid; valid is the id of a connection, or a list of ids"),
        ({"gpu_cluster_conn_id": ["a", None]}, "is not valid; valid is the id of a connection, or a list of ids"),
        ({"gpu_cluster_conn_id": ["a", ""]}, "is not valid; valid is the id of a connection, or a list of ids"),
        ({"gpu_cluster_conn_id": {"a": 1}}, "is not valid; valid is the id of a connection, or a list of ids"),
        ({"gpu_cluster_conn_id": {"a", "b"}}, "is not valid; valid is the id of a connection, or a list of ids"),
        ({"policy": "sonest"}, "policy is 'sonest' (did you mean 'soonest'?); valid are 'soonest', 'cheapest'"),
        ({"policy": "in order"}, "(did you mean 'in_order'?)"),
        ({"policy": 3}, "policy is a int; valid are"),
        ({"policy": lambda: None}, "it must take one argument, the offers that fit, and return one of them"),
        ({"policy": later}, "policy is the function later, which cannot be called with the offers"),
        ({"failover_after": 10}, "failover_after is 10 s, and must be at least 30 s: within it a launch has to"),
        ({"failover_after": timedelta(minutes=-1)}, "failover_after=datetime.timedelta"),
        ({"failover_after": 0}, "failover_after=0 (int) is not valid; valid is None, or seconds or a timedelta"),
        ({"failover_after": float("nan")}, "failover_after=nan (float) is not valid"),
        ({"failover_after": True}, "failover_after=True (bool) is not valid"),
        ({"move_gain": -1}, "move_gain=-1 (int) is not valid; valid is None (never moved), or seconds"),
        ({"move_gain": "soon"}, "move_gain='soon' is not valid"),
        ({"spread": 2}, "spread=2 (int) is not valid; valid is True or False"),
    ],
)
def test_what_cannot_be_used_is_told_when_the_dag_is_parsed(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidJobError) as raised:
        submit(**arguments)
    assert str(raised.value).startswith("task 'train': ")
    assert told in str(raised.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidJobError) as raised:
        submit(gpu_cluster_conn_id=[], policy="x", failover_after=1, move_gain=-1)
    assert len(str(raised.value).splitlines()) == 5


def test_templates_and_outputs_of_tasks_are_checked_when_the_task_runs() -> None:
    @task
    def clusters() -> list[str]:
        return ["a", "b"]

    with DAG("pools", schedule=None) as dag:
        ids = clusters()
        operator = submit(
            gpu_cluster_conn_id=ids, policy="{{ params.policy }}", failover_after="{{ params.failover_after }}"
        )
    assert operator.upstream_task_ids == {"clusters"}
    assert {"gpu_cluster_conn_id", "policy", "failover_after"} <= set(operator.template_fields)
    assert DagSerialization.to_dict(dag)


def test_a_function_and_a_list_survive_a_mapped_task_and_are_written_alike_every_time() -> None:
    def written() -> dict[str, Any]:
        with DAG("mapped", schedule=None) as dag:
            SubmitGpuJobOperator.partial(
                task_id="train", gpu_cluster_conn_id=["a", "b"], policy=first, failover_after=timedelta(hours=1)
            ).expand(command=["true", "false"])
            submit_one = SubmitGpuJobOperator(task_id="one", command="true", policy=first)
            assert checked_policy(submit_one.policy) is first
        return DagSerialization.to_dict(dag)

    assert str(written()) == str(written())
    assert "0x" not in str(written())
