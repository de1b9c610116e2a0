"""The demo's patience, and how it knows its own Airflow, tried on a web server that stands for Airflow's API server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
import pytest

from tests.servers.airflow import AirflowFailed, WholeAirflow

import demo  # isort: skip  # beside the module that tests.servers.airflow puts on the path
import whole_airflow  # isort: skip

Answer = tuple[int, str]


class ApiServer(ThreadingHTTPServer):
    """Gives the answers of a list, one a request, the last one again and again."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ApiRequest)
        self.answers: list[Answer] = []
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class ApiRequest(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answers = self.server.answers
        code, text = answers.pop(0) if len(answers) > 1 else answers[0]
        if code:  # else the connection ends without an answer
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def airflow(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WholeAirflow:
    """A whole Airflow of which nothing has been started but what answers at its address."""
    monkeypatch.setattr(whole_airflow, "_FIRST_PAUSE_S", 0.01)
    airflow = WholeAirflow(tmp_path, {}, tmp_path / "airflow.log")
    airflow.home.rmdir()
    airflow.home = tmp_path
    airflow.url = api.url
    return airflow


def run_is(state: str) -> Answer:
    return 200, json.dumps({"state": state})


def test_what_passes_is_waited_for(airflow: WholeAirflow, api: ApiServer) -> None:
    api.answers = [(0, ""), (503, "busy"), (500, "database is locked"), (200, '{"state": '), run_is("running")]
    assert airflow.state("a_dag", "a run") == "running"
    assert api.requests == ["GET /api/v2/dags/a_dag/dagRuns/a%20run"] * 5


def test_a_refusal_is_told_at_once(airflow: WholeAirflow, api: ApiServer) -> None:
    api.answers = [(404, "The DagRun was not found")]
    with pytest.raises(AirflowFailed, match="HTTP 404 The DagRun was not found"):
        airflow.state("a_dag", "a_run")
    assert len(api.requests) == 1


def test_silence_ends_with_the_name_of_the_log(
    airflow: WholeAirflow, api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_airflow, "_API_PATIENCE_S", 0.2)
    api.answers = [(0, "")]
    with pytest.raises(AirflowFailed, match=rf"no proper answer for 0\.2 s: .+; see {airflow.log}"):
        airflow.state("a_dag", "a_run")


def test_a_run_whose_start_was_answered_by_silence_is_not_started_twice(airflow: WholeAirflow, api: ApiServer) -> None:
    dags = (200, json.dumps({"dags": [{"dag_id": "a_dag"}]}))
    api.answers = [dags, (0, ""), (409, "a DagRun with this id exists already")]
    airflow.trigger("a_dag", "a_run")
    assert api.requests[1:] == ["POST /api/v2/dags/a_dag/dagRuns"] * 2


@pytest.mark.parametrize(
    "answer",
    [
        (201, json.dumps({"access_token": jwt.encode({"sub": "Anonymous"}, "a" * 64, algorithm="HS512")})),
        (401, '{"detail": "Invalid credentials"}'),
        (404, "Not Found"),
        (200, "[]"),
    ],
    ids=["another Airflow without a log-in", "another Airflow with one", "something else", "something with JSON"],
)
def test_what_answers_on_the_port_is_not_taken_for_its_own(
    airflow: WholeAirflow, api: ApiServer, answer: Answer
) -> None:
    api.answers = [answer]
    with pytest.raises(whole_airflow.PortTaken, match=f"another program answers at {api.url}"):
        airflow._own_token()


def test_its_own_is_known_by_the_signature(airflow: WholeAirflow, api: ApiServer) -> None:
    token = jwt.encode({"sub": "Anonymous", "aud": ["apache-airflow"]}, airflow._jwt_secret, algorithm="HS512")
    api.answers = [(201, json.dumps({"access_token": token}))]
    assert airflow._own_token() == token


def test_ports_are_away_from_those_of_an_airflow_that_comes_later(tmp_path: Path) -> None:
    ports = whole_airflow._free_ports(20)
    assert len(set(ports)) == 20
    assert not {8080, 8793, 8794, 8893} & set(ports)
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not set(ports) & set(range(first, last + 1))


def test_a_failed_run_leaves_airflow_up_and_says_where_the_logs_are(
    airflow: WholeAirflow,
    api: ApiServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "FOLDER", tmp_path / "kept")
    airflow.logs = tmp_path / "tasks"
    airflow.logs.mkdir()
    (airflow.logs / "attempt=1.log").write_text("the task's words\n")
    api.answers = [(404, "gone")]
    assert demo.try_dag(airflow, tmp_path, "a_run") == 1
    said = capsys.readouterr().out
    assert "FAILED: GET /importErrors: HTTP 404 gone" in said
    assert str(airflow.log) in said
    assert (tmp_path / "kept" / "logs" / "attempt=1.log").read_text() == "the task's words\n"


def test_a_run_in_which_nothing_happens_is_given_up_with_the_states_of_its_tasks(
    airflow: WholeAirflow, api: ApiServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "PATIENCE_S", 0.8)
    monkeypatch.setattr(demo, "REMINDER_S", 0.1)
    tasks = [{"task_id": "submit", "state": "queued"}, {"task_id": "wait", "state": None}]
    api.answers = [(200, json.dumps({"state": "running", "task_instances": tasks}))]
    with pytest.raises(AirflowFailed, match=r"nothing has happened for 0\.8 s \(submit queued, wait not yet due\)"):
        demo.follow(airflow, "a_run")
    assert "waiting since" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_whole_airflow_moves_away_from_a_port_that_another_program_took_first(api: ApiServer, tmp_path: Path) -> None:
    api.answers = [(404, "not yours")]
    airflow = WholeAirflow(tmp_path, {}, tmp_path / "airflow.log")
    airflow.url = api.url
    airflow._environ |= {"AIRFLOW__API__PORT": str(api.server_port), "AIRFLOW__API__BASE_URL": api.url}
    with airflow:
        assert airflow.url != api.url
        assert airflow.get("/monitor/health")["metadatabase"]["status"] == "healthy"
