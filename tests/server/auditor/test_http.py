"""The auditor's door over HTTP: a real server with the hub's certificate, on this machine."""

import base64
import csv
import io
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from bract.errors import BractError
from bract.roles import Role
from bract_server.auditor.serving import door, listen, run, server
from bract_server.cli.options import now
from bract_server.home import HubHome, create
from bract_server.hub import open_registry
from bract_server.registry.store import HubRegistry
from tests.server.registry.world import SITES, World, campaign_plan

PATHS = ("/", "/v1/questions", "/v1/questions/5", "/questions/5", "/v1/log/checkpoint", "/v1/proofs/1", "/nowhere")


@dataclass
class Served:
    home: HubHome
    registry: HubRegistry
    url: str
    trust: ssl.SSLContext

    def token(self, name: str, role: Role, site: str | None = None) -> str:
        until = now() + timedelta(days=1)
        return self.registry.issue_token(name, role, now(), expires_at=until, site=site)[1]

    def client(self, token: str = "") -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, verify=self.trust, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("auditor") / "hub"
    home = create(folder, name="beacon", at=now())
    registry = open_registry(home)
    world = World(registry._engine, registry)
    for site in SITES:
        world.enrol(site)
    world.whole_round(world.start(campaign_plan()), "alder", "birch")
    one = server(home, tls=True)
    listening = listen("127.0.0.1", 0)
    thread = threading.Thread(target=one.run, kwargs={"sockets": [listening]})
    thread.start()
    while not one.started:
        time.sleep(0.01)
    trust = ssl.create_default_context(cafile=str(home.authority_file))
    yield Served(home, registry, f"https://127.0.0.1:{listening.getsockname()[1]}", trust)
    one.should_exit = True
    thread.join(30)
    listening.close()
    registry.verify_log()


def test_whoever_asks_shows_a_token_and_asks_what_its_role_may(served: Served) -> None:
    for header in (
        None,
        "Bearer nonsense",
        "Bearer",
        "Basic !!",
        "Digest x",
        f"Basic {base64.b64encode(b'a:b').decode()}",
    ):
        with served.client() as stranger:
            told = stranger.get("/v1/questions", headers={} if header is None else {"Authorization": header})
        assert (told.status_code, told.json()["code"]) == (401, "access-token")
        assert told.headers["content-type"] == "application/problem+json"
        assert "Basic" in told.headers["www-authenticate"]
    secret = served.token("ada", Role.AUDITOR)
    by_password = base64.b64encode(f"anyone:{secret}".encode()).decode()
    with served.client() as browser:
        assert browser.get("/", headers={"Authorization": f"Basic {by_password}"}).status_code == 200
    with served.client(served.token("olga", Role.OPERATOR)) as operator:
        assert {one["number"] for one in operator.get("/v1/questions").json()} == set(range(1, 16)) - {1, 2, 7, 14}
        assert operator.get("/v1/questions/8").status_code == 200
        refused = operator.get("/v1/questions/14")
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    with served.client(served.token("alder-daemon", Role.SITE, "alder")) as site:
        assert "birch" not in site.get("/v1/questions/5").text
        assert site.get("/v1/lineage/heart%2F1").status_code == 403


def test_a_sites_token_proves_what_is_the_sites_and_nothing_of_others(served: Served) -> None:
    shown: dict[str, set[str]] = {"actor": set(), "kind": set()}
    with served.client(served.token("birch-daemon", Role.SITE, "birch")) as site:
        size = site.get("/v1/log/checkpoint").json()["size"]
        for seq in range(1, size + 1):
            told = site.get(f"/v1/proofs/{seq}")
            assert told.status_code in (200, 403), seq
            if told.status_code == 200:
                entry = told.json()["entry"]
                for field, values in shown.items():
                    values.add(entry[field])
                assert "alder" not in (entry["actor"], entry["about"])
    assert shown["actor"] == {"birch", "hub"}
    assert {"site.add", "clearance.take", "contribution.accept", "round.open"} <= shown["kind"]
    assert not {"access.issue", "access.read"} & shown["kind"]


def test_a_token_for_some_questions_reads_no_lineage_beside_them(served: Served) -> None:
    until = now() + timedelta(days=1)
    for questions, status in ((frozenset({5}), 403), (frozenset({5, 6}), 200)):
        name = f"narrow-{len(questions)}"
        _, secret = served.registry.issue_token(name, Role.AUDITOR, now(), expires_at=until, questions=questions)
        with served.client(secret) as narrow:
            assert narrow.get("/v1/lineage/heart%2F1").status_code == status


def test_an_auditor_cannot_write(served: Served) -> None:
    with served.client(served.token("ada", Role.AUDITOR)) as auditor:
        for path in PATHS:
            for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE"):
                told = auditor.request(method, path)
                assert (told.status_code, told.headers["allow"]) == (405, "GET"), (method, path)
        spoken = auditor.get("/v1/openapi.json").json()
        assert spoken["openapi"].startswith("3.1")
        assert {method for path in spoken["paths"].values() for method in path} == {"get"}
    # and were there such a route, the connections behind it could not
    with door(served.home).sight(None).seeing() as session, pytest.raises(DBAPIError, match="readonly"):
        session.execute(text("DELETE FROM access_token"))
    with pytest.raises(DBAPIError, match="readonly"):
        door(served.home).sight(None).revoke_token(1, now())


def test_answers_have_their_proof_and_their_pages_escape_what_people_wrote(served: Served) -> None:
    with served.client(served.token("ada", Role.AUDITOR)) as auditor:
        hostile = "<script>alert(1)</script>"
        told = auditor.get("/v1/questions/6", params={"why": hostile})
        body = told.json()
        assert told.headers["etag"] == f'"{body["proof"]["size"]}"' and body["proof"]["entries"]
        proof = auditor.get(f"/v1/proofs/{body['proof']['entries'][0]}").json()
        assert proof["entry"]["seq"] == body["proof"]["entries"][0] and proof["note"].startswith("beacon\n")
        head = auditor.get("/v1/log/checkpoint").json()
        assert head["size"] >= body["proof"]["size"]
        kept = auditor.get("/v1/questions/3", params={"checkpoint": f"{head['size']}:{head['root']}"})
        assert [row["holds"] for row in kept.json()["rows"]] == [True, True]
        forged = auditor.get("/v1/questions/3", params={"checkpoint": f"{head['size']}:sha256:{'0' * 64}"})
        assert (forged.status_code, forged.json()["code"]) == (409, "log-inconsistent")

        page = auditor.get("/questions/14")
        assert hostile not in page.text and "&lt;script&gt;" in page.text
        for header, value in (("cache-control", "no-store"), ("x-content-type-options", "nosniff")):
            assert page.headers[header] == value
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        assert "<script" not in page.text and "style=" not in page.text
        rows = list(csv.DictReader(io.StringIO(auditor.get("/v1/questions/14/rows.csv").text)))
        assert hostile in {row["purpose"] for row in rows}
        for number in range(1, 16):
            assert auditor.get(f"/v1/questions/{number}").status_code == 200, number
            assert auditor.get(f"/questions/{number}").status_code == 200, number


def test_bad_input_is_a_problem_document_that_names_the_field(served: Served) -> None:
    with served.client(served.token("ada", Role.AUDITOR)) as auditor:
        for path, status in (
            ("/v1/questions/0", 400),
            ("/v1/questions/one", 400),
            ("/v1/questions/5?as_of=Friday", 400),
            ("/v1/questions/5?known=2999-01-01", 400),
            ("/v1/questions/2?round=0", 400),
            ("/v1/questions/3?checkpoint=12", 400),
            ("/v1/questions/6?of=' OR 1=1 --", 400),
            ("/v1/questions/2?campaign='; DROP TABLE round; --", 400),
            ("/v1/proofs/999999", 404),
            ("/v1/proofs/99999999999999999999999", 400),
            ("/v1/questions/6?of=a%00b", 400),
            ("/v1/questions/5?why=a%00b", 400),
            ("/v1/lineage/a%00b", 400),
            ("/v1/lineage/../../etc/passwd", 404),
            ("/nowhere", 404),
        ):
            told = auditor.get(path)
            assert (told.status_code, told.headers["content-type"]) == (status, "application/problem+json"), path
            assert set(told.json()) == {"type", "title", "status", "detail", "code", "remedy"}
            assert told.headers["cache-control"] == "no-store"


def test_plain_http_is_for_this_machine_only(served: Served) -> None:
    with pytest.raises(BractError, match="this machine only"):
        run(served.home, "0.0.0.0", 0, tls=False)  # noqa: S104 - what is refused


def test_as_of_holds_over_http(served: Served) -> None:
    before = (now() - timedelta(days=400)).isoformat()
    with served.client(served.token("ada", Role.AUDITOR)) as auditor:
        told = auditor.get("/v1/questions/8", params={"known": before, "as_of": before}).json()
    assert told["rows"] == [] and told["proof"] == {"origin": "beacon", "size": 0, "root": None, "entries": []}
