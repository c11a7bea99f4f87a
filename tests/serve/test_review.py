"""The review's server: who gets in, which rows are shown, what is said and taken back."""

import io
import json
import re

import pytest
from PIL import Image
from pyarrow import parquet

from capfilt.clean import reviews
from capfilt.clean.policies import Policy
from capfilt.clean.views import decide_run
from capfilt.errors import ConfigError, DataError
from capfilt.serve.review.desk import Desk, asked_of
from capfilt.serve.review.rows import Asked, Rows
from capfilt.serve.review.server import reviewing


@pytest.fixture
def table(run):
    return parquet.read_table(run / "decisions.parquet").to_pylist()


@pytest.fixture
def rows(run, tmp_path):
    return Rows(run, tmp_path)


# ---- who gets in ------------------------------------------------------------------------------------------------


def test_without_the_cookie_nobody_gets_anything(client):
    for path in ("/", "/review.js", "/api/about", "/api/rows", "/image/x"):
        for cookie in ("", "a=b", f"{client.server.cookie}=wrong", "\x01;;=", client.cookie[:-1]):
            assert client.ask("GET", path, Cookie=cookie)[0] == 403, (path, cookie)
    assert client.ask("POST", "/api/undo", b"{}", Cookie="")[0] == 403
    assert client.ask("GET", "/?token=wrong", Cookie="")[0] == 403


def test_the_token_opens_only_the_front_page(client):
    assert client.ask("GET", f"/api/about?token={client.server.token}", Cookie="")[0] == 403
    _, headers, _ = client.ask("GET", f"/?token={client.server.token}", Cookie="")
    assert "HttpOnly" in headers["Set-Cookie"] and "SameSite=Strict" in headers["Set-Cookie"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:{other}", "", "localhost.evil:{port}"]
)
def test_other_names_of_this_machine_are_refused(client, host):
    host = host.format(port=client.server.server_port, other=client.server.server_port - 1)
    assert client.ask("GET", "/", Host=host or "x")[0] == 421
    assert client.ask("GET", "/", Host=f"localhost:{client.server.server_port}")[0] == 200


def test_another_site_may_not_say_anything(client, table):
    body = json.dumps({"id": table[0]["id"], "verdict": "reject"}).encode()
    assert client.ask("POST", "/api/review", body, Origin="http://evil.example")[0] == 403
    assert client.ask("POST", "/api/review", body, Origin="null")[0] == 403
    assert client.ask("POST", "/api/review", body, Content_Type="text/plain")[0] == 415
    assert client.ask("POST", "/api/review", b"x" * (1 << 16) + b"x")[0] == 413
    assert client.ask("POST", "/api/review", b"[]")[0] == client.ask("POST", "/api/review", b"{")[0] == 400
    assert client.get("/api/about")["reviewed"] == 0


@pytest.mark.parametrize("path", ["/", "/api/about", "/nothing", "/image/x"])
def test_every_answer_carries_the_policy(client, path):
    _, headers, _ = client.ask("GET", path)
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY" and "Access-Control-Allow-Origin" not in headers


def test_the_page_itself_has_no_inline_script_or_style(client):
    page = client.ask("GET", "/")[2].decode()
    assert not re.findall(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", page)
    assert set(re.findall(r'(?:src|href)="(/[^"]*)"', page)) == {"/review.css", "/bars.js", "/review.js", "/icon.svg"}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"])
def test_other_methods_are_refused(client, method):
    assert client.ask(method, "/")[0] == 501


PATHS = (
    "/../pyproject.toml /%2e%2e/x /image/../../run.json /image/%2e%2e%2frun.json /image/ //x /review.css/../x "
    f"/api/rows/.. /image/{'0' * 32} /image/%C3%A9 /image/{'f' * 900}"
).split()


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_to_a_file(client, path):
    status, _, data = client.ask("GET", path)
    assert status == 404 and "error" in json.loads(data)


QUERIES = [
    *(
        "offset=-1",
        "many=0",
        "many=101",
        "offset=x",
        "low=x",
        "low=nan",
        "order=x",
        "which=x",
        "decision=x",
        "version=x",
    ),
    "&".join(["a=1"] * 40),
    f"text={'x' * 201}",
    f"offset={'9' * 5000}",
]


@pytest.mark.parametrize("query", QUERIES)
def test_questions_that_cannot_be_are_refused(client, query):
    status, _, data = client.ask("GET", f"/api/rows?{query}")
    assert status == 400 and json.loads(data)["error"]


# ---- which rows -------------------------------------------------------------------------------------------------


def test_a_page_of_rows_is_what_was_decided(client, table):
    found = client.get("/api/rows?offset=20&many=5")
    assert found["total"] == 100 and [row["id"] for row in found["rows"]] == [row["id"] for row in table[20:25]]
    assert found["rows"][0]["web_text"] == table[20]["web_text"]


def test_filters_and_order(rows, table):
    places = {row["id"]: place for place, row in enumerate(table)}

    def expected(keep):
        return [places[row["id"]] for row in table if keep(row)]

    assert rows.find(Asked(decision="drop")).tolist() == expected(lambda r: r["decision"] == "drop")
    assert rows.find(Asked(source="shop 1")).tolist() == expected(lambda r: r["source"] == "shop 1")
    assert rows.find(Asked(source="nowhere")).tolist() == []
    assert rows.find(Asked(kind="truncated")).tolist() == expected(lambda r: r["decision"] == "failed")
    assert rows.find(Asked(text="RED BOAT")).tolist() == expected(lambda r: "red boat" in r["key"])
    low = rows.find(Asked(low=0.2, high=0.4, which="synthetic", order="lowest")).tolist()
    assert low == sorted(
        expected(lambda r: 0.2 <= (r["score_synthetic"] or 9) <= 0.4), key=lambda p: table[p]["score_synthetic"]
    )
    scores = [table[p]["score_web"] for p in rows.find(Asked(order="highest"))]
    known = [s for s in scores if s is not None]
    assert known == sorted(known, reverse=True) and scores[len(known) :] == [None] * (len(scores) - len(known))


def test_ids_lead_to_their_rows_and_nothing_else_does(rows, table):
    assert [rows.place(row["id"]) for row in table] == list(range(100))
    for wrong in ("", "x", "0" * 32, table[0]["id"][:-1] + "g", table[0]["id"].upper(), table[0]["id"][:16] + "0" * 16):
        assert rows.place(wrong) is None or wrong == table[0]["id"]


def test_paging_through_unreviewed_rows_skips_none(client):
    seen, version = [], None
    while True:
        more = f"&version={version}" if version is not None else ""
        found = client.get(f"/api/rows?reviewed=no&decision=keep&offset={len(seen)}&many=7{more}")
        version = found["version"]
        for row in found["rows"]:
            client.post("/api/review", id=row["id"], verdict="reject")
        seen += [row["id"] for row in found["rows"]]
        if len(seen) >= found["total"]:
            break
    assert len(set(seen)) == found["total"] == client.get("/api/rows?reviewed=yes")["total"]
    assert client.get("/api/rows?reviewed=no&decision=keep")["total"] == 0


def test_about_says_what_there_is(client, run):
    about = client.get("/api/about")
    counted = json.loads((run / "decisions.json").read_text())["counts"]
    assert list(about["decisions"].values()) == [counted[n] for n in ("kept", "replaced", "dropped", "failed")]
    assert about["rows"] == 100 and not about["stale"] and about["bars"]["policy"] == "blip"
    assert {kind for kind, _, _ in about["kinds"]} == {"filter", "truncated", "too_small", "duplicate"}


def test_images_are_encoded_anew_and_small(client, table):
    status, headers, data = client.ask("GET", f"/image/{table[0]['id']}")
    assert status == 200 and headers["Content-Type"] == "image/jpeg" and b"secret" not in data
    assert Image.open(io.BytesIO(data)).size == (90, 60)
    failed = next(row for row in table if row["decision"] == "failed")
    assert client.ask("GET", f"/image/{failed['id']}")[0] == 404


# ---- what is said -----------------------------------------------------------------------------------------------


def test_words_are_written_and_heeded(client, run, table):
    keep, drop, other = (next(r for r in table if r["decision"] == d) for d in ("keep", "drop", "replace"))
    found = client.post("/api/review", id=keep["id"], verdict="reject", which=None, text=None)
    assert found["row"]["said"] == {"verdict": "reject", "which": None, "text": None} and found["reviewed"] == 1
    client.post("/api/review", id=drop["id"], verdict="edit", which=None, text="  a  new\ntext ")
    client.post("/api/review", id=other["id"], verdict="accept", which="web")
    decide_run(run, Policy())
    now = {row["id"]: row for row in parquet.read_table(run / "decisions.parquet").to_pylist()}
    assert now[keep["id"]]["decision"] == "drop" and now[drop["id"]]["text"] == "a new text"
    assert now[other["id"]]["decision"] == "keep" and now[other["id"]]["text"] == other["web_text"]
    assert client.get("/api/about")["stale"]


def test_what_cannot_be_said_is_refused_and_not_written(client, run, table):
    keep, failed = (next(r for r in table if r["decision"] == d) for d in ("keep", "failed"))
    wrong = [
        {"id": keep["id"], "verdict": "undo"},
        {"id": keep["id"], "verdict": "accept"},
        {"id": keep["id"], "verdict": "accept", "which": "other"},
        {"id": keep["id"], "verdict": "edit", "text": " "},
        {"id": keep["id"], "verdict": "edit", "text": "x" * 4001},
        {"id": keep["id"], "verdict": 3},
        {"id": keep["id"], "verdict": "edit", "text": ["a"]},
        {"id": failed["id"], "verdict": "accept", "which": "web"},
        {"id": "../../x", "verdict": "reject"},
        {},
    ]
    for body in wrong:
        status, _, data = client.ask("POST", "/api/review", json.dumps(body).encode())
        assert status in (400, 404) and json.loads(data)["error"], body
    assert not (run / reviews.NAME).exists()


def test_undo_takes_back_the_last_word_then_the_one_before(client, run, table):
    one = table[0]["id"]
    client.post("/api/review", id=one, verdict="reject")
    client.post("/api/review", id=one, verdict="edit", text="mine")
    found = client.post("/api/undo")
    assert found["undone"] == 1 and found["rows"][0]["said"]["verdict"] == "reject"
    assert client.post("/api/undo")["rows"][0]["said"] is None
    assert client.post("/api/undo")["undone"] == 0
    assert reviews.last_words(run) == {} and len((run / reviews.NAME).read_text().splitlines()) == 4


def test_find_and_replace_previews_then_changes_and_is_undone_as_one(client, run, table):
    asked = {"decision": "keep"}
    body = {"asked": asked, "find": "RED (", "put": "x", "which": "text", "case": False}
    assert client.post("/api/replace", **body, apply=False)["changed"] == 0  # no pattern, plain text
    body["find"] = "Red Boat"
    boats = [row for row in table if row["decision"] == "keep" and "red boat" in row["text"]]
    preview = client.post("/api/replace", **body, apply=False)
    assert preview["changed"] == len(boats) > 1 and preview["reviewed"] == 0
    assert preview["examples"][0] == {
        "id": boats[0]["id"], "before": boats[0]["text"], "after": boats[0]["text"].replace("red boat", "x"),
    }  # fmt: skip
    assert client.post("/api/replace", **body | {"case": True}, apply=False)["changed"] == 0
    assert client.post("/api/replace", **body, apply=True)["reviewed"] == len(boats)
    assert reviews.last_words(run)[boats[1]["id"]].text == boats[1]["text"].replace("red boat", "x")
    again = client.post("/api/replace", **body | {"find": " on the", "put": r"\1"}, apply=True)
    assert again["changed"] == len(boats) and r"x\1 sea" in reviews.last_words(run)[boats[0]["id"]].text
    assert client.post("/api/undo")["undone"] == len(boats) and client.post("/api/undo")["undone"] == len(boats)
    assert reviews.last_words(run) == {}


def test_a_replacement_that_leaves_nothing_is_left_alone(client, table):
    text = next(row["text"] for row in table[10:] if row["decision"] == "keep")
    found = client.post("/api/replace", asked={"text": text}, find=text, put="", which="web", case=True, apply=True)
    assert (found["changed"], found["empty"], found["reviewed"]) == (0, 1, 0)


def test_words_said_before_are_there_again(run, tmp_path, table):
    reviews.append(run, reviews.Review(table[3]["id"], "reject"))
    (tmp_path / "a").mkdir()
    with Desk(run, tmp_path / "a") as desk:
        assert desk.about()["reviewed"] == 1 and desk.page(Asked(reviewed=True), 0, 20)["total"] == 1


# ---- beginning --------------------------------------------------------------------------------------------------


def test_a_folder_without_decisions_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="nothing was decided"), reviewing(tmp_path, port=0):
        pass


def test_a_port_in_use_says_so(client, run):
    with pytest.raises(ConfigError, match="--port"), reviewing(run, port=client.server.server_port):
        pass


def test_asking_takes_strings_only():
    with pytest.raises(ConfigError):
        asked_of({"text": ["a"]})
    assert asked_of({"source": "", "decision": ""}) == Asked(source="")
