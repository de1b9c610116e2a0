"""Pools as DAGs and connections name them: what is understood, and what is told of what cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_gpu_cluster.exceptions import GpuClusterError, GpuClusterSetupError, InvalidJobError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.hooks.gpu_cluster_pool import GpuClusterPoolHook
from airflow_provider_gpu_cluster.hooks.pools import pool_of
from airflow_provider_gpu_cluster.pools.offer import Member
from airflow_provider_gpu_cluster.pools.pool import Pool

Define = Callable[..., None]


@pytest.fixture
def define(monkeypatch: pytest.MonkeyPatch) -> Define:
    """Return a function that defines a connection by its extra; there are gpu01, gpu02 and the ssh connection old."""

    def apply(conn_id: str, conn_type: str = "gpu_cluster_pool", host: str = "", **extra: Any) -> None:
        value = {"conn_type": conn_type, "host": host, "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(value))

    apply("gpu01", "gpu_cluster", "one.example.org")
    apply("gpu02", "gpu_cluster", "two.example.org", weight="2", price_per_gpu_hour=1.5)
    apply("old", "ssh", "127.0.0.1")
    return apply


GPU01, GPU02 = Member("gpu01"), Member("gpu02", 2.0, 1.5)


@pytest.mark.parametrize(
    ("extra", "pool"),
    [
        ({"members": ["gpu01", "gpu02"]}, Pool((GPU01, GPU02), conn_id="lab")),
        ({"members": "gpu02, gpu01 ,"}, Pool((GPU02, GPU01), conn_id="lab")),
        ({"members": "gpu02\ngpu01"}, Pool((GPU02, GPU01), conn_id="lab")),
        ({"members": '["gpu01"]', "policy": "cheapest"}, Pool((GPU01,), "cheapest", "lab")),
        ({"members": {"gpu01": 3, "gpu02": None}}, Pool((Member("gpu01", 3.0), GPU02), conn_id="lab")),
        ({"members": '{"gpu02": "0.5"}', "policy": ""}, Pool((Member("gpu02", 0.5, 1.5),), conn_id="lab")),
        ({"members": "old,gpu01"}, Pool((Member("old"), GPU01), conn_id="lab")),
    ],
)
def test_a_connection_names_its_members_in_several_ways(define: Define, extra: dict[str, Any], pool: Pool) -> None:
    define("lab", **extra)
    assert pool_of("lab") == pool
    assert GpuClusterHook("lab").pool == pool


@pytest.mark.parametrize(
    "uri",
    [
        "gpu-cluster-pool:///?members=gpu01%2Cgpu02&policy=in_order",
        "gpu-cluster-pool:///?__extra__=%7B%22members%22%3A+%5B%22gpu01%22%2C+%22gpu02%22%5D%2C+%22policy%22%3A+%22in_order%22%7D",
    ],
)
def test_a_uri_names_them_too(define: Define, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAB", uri)
    assert pool_of("lab") == Pool((GPU01, GPU02), "in_order", "lab")


@pytest.mark.parametrize(
    "written", [["gpu01", "gpu02"], ("gpu01", "gpu02"), "['gpu01', 'gpu02']", '["gpu01", "gpu02"]', "gpu01, gpu02"]
)
def test_a_dag_names_them_in_a_list_and_a_template_in_its_text(define: Define, written: Any) -> None:
    pool = Pool((GPU01, GPU02))
    assert pool_of(written) == pool == GpuClusterHook(written).pool
    assert pool_of(written, "cheapest") == Pool((GPU01, GPU02), "cheapest")


def test_one_cluster_is_no_pool(define: Define) -> None:
    assert [pool_of(one) for one in ("gpu01", "old", ["gpu02"], "['gpu01']")] == [None] * 4
    hook = GpuClusterHook(["gpu01"])
    assert hook.gpu_cluster_conn_id == "gpu01"
    assert hook.member("gpu01") is hook
    with pytest.raises(AirflowNotFoundException, match="Make a connection of type gpu_cluster with that id"):
        pool_of("nowhere")


def test_the_policy_of_the_task_comes_before_that_of_the_connection(define: Define) -> None:
    define("lab", members="gpu01,gpu02", policy="cheapest")
    found = [pool_of("lab", policy) for policy in (None, "in_order")]
    assert [pool and pool.policy for pool in found] == ["cheapest", "in_order"]


def test_fifty_members(define: Define) -> None:
    names = [f"node{number}" for number in range(50)]
    for name in names:
        define(name, "gpu_cluster", name)
    define("lab", members=names)
    pool = pool_of("lab")
    assert pool is not None
    assert pool.conn_ids == names


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({}, "connection lab: field members is None; it must be ids of connections with commas between them"),
        ({"members": []}, "connection lab: field members is []; it must be ids of connections"),
        ({"members": " , "}, "connection lab: field members is ' , '; it must be ids"),
        ({"members": {}}, "connection lab: field members is {}; it must be ids"),
        ({"members": 7}, "connection lab: field members is 7; it must be ids"),
        ({"members": ["gpu01", 7]}, "connection lab: field members is ['gpu01', 7]; it must be ids"),
        ({"members": ["gpu01", ""]}, "connection lab: field members is ['gpu01', '']; it must be ids"),
        ({"members": "[gpu01"}, "connection lab: field members is '[gpu01'; it must be ids"),
        ({"members": "gpu01, gpu01"}, "connection lab: field members names gpu01 more than once; name each once"),
        ({"members": {"gpu01": 1, " gpu01": 1}}, "connection lab: field members names gpu01 more than once"),
        (
            {"members": {"gpu01": 0}},
            "connection lab: field members gives gpu01 the weight 0; it must be a number above",
        ),
        ({"members": {"gpu01": -2}}, "gives gpu01 the weight -2; it must be a number above 0"),
        ({"members": {"gpu01": "NaN"}}, "gives gpu01 the weight 'NaN'; it must be a number above 0"),
        ({"members": {"gpu01": True}}, "gives gpu01 the weight True; it must be a number above 0"),
        ({"members": "gpu01,gpu03"}, "field members names 'gpu03', and Airflow has no connection with that id; make"),
        ({"members": "gpu01,lab"}, "field members names 'lab', which is a pool itself, and a pool has no pools in it"),
        ({"members": "gpu01,web"}, "field members names 'web', whose connection is of type http; a member must be of"),
        (
            {"members": "gpu01,gpu01b"},
            "field members names 'gpu01' and 'gpu01b', which are connections to the same host",
        ),
        ({"members": "gpu01,bad"}, "connection bad: field weight is 0; it must be a number above 0, such as 2, or"),
        ({"members": "gpu01,nan"}, "connection nan: field price_per_gpu_hour is 'nan'; it must be a number from 0 up"),
        ({"members": "gpu01", "policy": "best"}, "connection lab: field policy is 'best'; it must be one of: soonest"),
        ({"member": "gpu01"}, "connection lab: its extra has a field that the provider does not know: member (did you"),
        ({"members": "gpu01", "login": "x"}, "login (it is a field of the connection itself, beside the extra)"),
        ({"members": "gpu01", "engine": "slurm"}, "a field that the provider does not know: engine."),
    ],
)
def test_what_cannot_be_used_is_told_with_connection_and_field(
    define: Define, extra: dict[str, Any], told: str
) -> None:
    define("web", "http", "127.0.0.1")
    define("gpu01b", "gpu_cluster", "one.example.org", root_dir="~/ml-jobs")
    define("bad", "gpu_cluster", "127.0.0.1", weight=0)
    define("nan", "gpu_cluster", "127.0.0.1", price_per_gpu_hour="nan")
    define("lab", **extra)
    with pytest.raises(GpuClusterSetupError) as raised:
        pool_of("lab")
    assert told in str(raised.value)
    works, message = GpuClusterPoolHook("lab").test_connection()
    assert (works, message) == (False, str(raised.value))


def test_a_pool_has_no_host_of_its_own(define: Define) -> None:
    define("lab", host="gpu01.example.org", members="gpu01")
    with pytest.raises(
        GpuClusterSetupError, match=r"field host is 'gpu01\.example\.org'; it must be empty: a pool has no"
    ):
        pool_of("lab")


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (["gpu01", "gpu03"], "gpu_cluster_conn_id=['gpu01', 'gpu03'] names 'gpu03', and Airflow has no connection"),
        (
            ["gpu01", "lab"],
            "names 'lab', which is a pool itself, and a pool has no pools in it; name the members of lab",
        ),
        ([], "gpu_cluster_conn_id is an empty list"),
        (["gpu01", "gpu01"], "gpu_cluster_conn_id names gpu01 more than once"),
    ],
)
def test_a_list_that_cannot_be_used_is_told(define: Define, ids: list[str], told: str) -> None:
    define("lab", members="gpu01,gpu02")
    with pytest.raises((GpuClusterSetupError, InvalidJobError)) as raised:
        pool_of(ids)
    assert told in str(raised.value)


def test_a_pool_is_no_cluster_itself(define: Define) -> None:
    define("lab", members="gpu01,gpu02")
    hook = GpuClusterHook("lab")
    for use in (lambda: hook.cluster, hook.connect, lambda: hook.settings):
        with pytest.raises(GpuClusterError, match=r"connection lab is a pool of clusters \(gpu01, gpu02\), and this"):
            use()
    with pytest.raises(NotImplementedError, match="connection lab is a pool of clusters and opens no connection"):
        GpuClusterPoolHook("lab").get_conn()
