"""Shards that are whole or not there, found again after a cut, a loss, or work by several."""

import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from capfilt.clean.columns import ROWS, SCORES
from capfilt.clean.ledger import Entry, Ledger
from capfilt.errors import ChangedError, CheckFailed, DataError


def scores(shard: int, rows: int = 4) -> pa.Table:
    """A shard of its own content."""
    numbers = range(rows * shard, rows * (shard + 1))
    one = {"itm_web": [0.5], "itc_web": [0.25], "logp": [], "itm_synthetic": [], "itc_synthetic": []}
    made = [{"id": f"{i:032x}", "synthetic": [f"picture {i}"], **one} for i in numbers]
    return pa.Table.from_pylist(made, SCORES)


def ids(ledger: Ledger) -> list[str]:
    return [row for table in ledger.tables("scores", ["id"]) for row in table["id"].to_pylist()]


def test_what_is_committed_is_found_again_in_order(tmp_path):
    ledger = Ledger(tmp_path)
    assert ledger.shards("scores") == [] and ledger.rows("scores") == 0
    for shard in (2, 0, 1):
        ledger.commit("scores", shard, scores(shard))
    for found in (ledger, Ledger(tmp_path)):
        assert found.shards("scores") == [0, 1, 2] and found.shards("rows") == []
        assert found.rows("scores") == 12 and found.verify() == []
        assert ids(found) == [f"{i:032x}" for i in range(12)]
    assert Ledger(tmp_path).table("scores", 1).equals(scores(1))
    assert Ledger(tmp_path).table("scores", 1, ["synthetic"]).column_names == ["synthetic"]


def test_a_shard_made_anew_takes_the_place_of_the_old_one(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.commit("scores", 0, scores(0))
    ledger.commit("scores", 0, scores(7))
    again = Ledger(tmp_path)
    assert again.verify() == [] and again.rows("scores") == 4 and again.table("scores", 0).equals(scores(7))


def test_other_columns_are_refused(tmp_path):
    for table in (
        scores(0).drop_columns("logp"),
        scores(0).append_column("more", pa.nulls(4)),
        pa.table({"id": ["a"]}),
    ):
        with pytest.raises(CheckFailed, match=r"scores 0: columns \['id'"):
            Ledger(tmp_path).commit("scores", 0, table)
    assert not list(tmp_path.iterdir())


def test_bytes_hang_on_values_alone(tmp_path):
    whole = scores(0, rows=3000)
    pieces = pa.concat_tables([whole.slice(i, 7) for i in range(0, 3000, 7)])
    labelled = whole.replace_schema_metadata({"engine": "another"})
    bytes_of = set()
    for name, table in {"whole": whole, "pieces": pieces, "labelled": labelled}.items():
        ledger = Ledger(tmp_path / name)
        ledger.commit("scores", 0, table)
        bytes_of.add(ledger.path("scores", 0).read_bytes())
    assert len(bytes_of) == 1


def test_an_empty_shard_is_a_shard(tmp_path):
    Ledger(tmp_path).commit("rows", 0, ROWS.empty_table())
    assert Ledger(tmp_path).shards("rows") == [0] and Ledger(tmp_path).verify() == []


def test_a_manifest_cut_at_any_byte_loses_only_what_it_no_longer_says(tmp_path):
    ledger = Ledger(tmp_path)
    for shard in range(3):
        ledger.commit("scores", shard, scores(shard))
    manifest = tmp_path / "manifest.jsonl"
    whole = manifest.read_bytes()
    for cut in range(len(whole)):
        manifest.write_bytes(whole[:cut])
        there = whole[:cut].count(b"\n")
        assert Ledger(tmp_path).shards("scores") == list(range(there)), cut
        if cut % 16 == 0 or whole[cut - 1 : cut] == b"\n":
            found = Ledger(tmp_path)
            assert found.verify() == []
            for shard in range(there, 3):
                found.commit("scores", shard, scores(shard))
            assert manifest.read_bytes() == whole, cut


@pytest.mark.parametrize("wrong", [b"\0" * 20, b"\xff\xfe", b"", b"[1]", b'{"stage": "scores"}', b'{"stage": "sco'])
def test_a_damaged_line_between_whole_ones_is_named(tmp_path, wrong):
    ledger = Ledger(tmp_path)
    for shard in range(2):
        ledger.commit("scores", shard, scores(shard))
    manifest = tmp_path / "manifest.jsonl"
    first, second = manifest.read_bytes().splitlines()
    manifest.write_bytes(b"\n".join((first, wrong, second, b"")))
    with pytest.raises(DataError, match="line 2 is damaged"):
        Ledger(tmp_path)


def test_what_is_gone_or_changed_is_said_and_made_again(tmp_path):
    ledger = Ledger(tmp_path)
    for shard in range(3):
        ledger.commit("scores", shard, scores(shard))
    whole = {path.name: path.read_bytes() for path in (tmp_path / "scores").iterdir()}
    ledger.path("scores", 0).unlink()
    changed = bytearray(whole["00002.parquet"])
    changed[100] ^= 1
    ledger.path("scores", 2).write_bytes(changed)

    found = Ledger(tmp_path)
    gone, other = found.verify()
    assert "00000.parquet: is gone" in gone and "00002.parquet: is not what was committed" in other
    assert found.shards("scores") == [1] and found.rows("scores") == 4
    for shard in (0, 2):
        found.commit("scores", shard, scores(shard))
    assert Ledger(tmp_path).verify() == [] and Ledger(tmp_path).shards("scores") == [0, 1, 2]
    assert {path.name: path.read_bytes() for path in (tmp_path / "scores").iterdir()} == whole


@pytest.mark.parametrize(("left", "what"), [(None, "is gone"), (b"", "is damaged"), (b"PAR1" * 9, "is damaged")])
def test_a_lost_shard_is_one_line_to_its_reader(tmp_path, left, what):
    ledger = Ledger(tmp_path)
    ledger.commit("scores", 0, scores(0))
    ledger.path("scores", 0).unlink()
    if left is not None:
        ledger.path("scores", 0).write_bytes(left)
    with pytest.raises(DataError, match=rf"00000.parquet: {what}"):
        list(ledger.tables("scores"))


def test_parts_share_a_folder_and_the_whole_finds_all(tmp_path):
    parts = [Ledger(tmp_path, f"{i}-of-2") for i in (1, 2)]
    for shard in range(4):
        parts[shard % 2].commit("scores", shard, scores(shard))
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["manifest-1-of-2.jsonl", "manifest-2-of-2.jsonl"]
    assert parts[0].shards("scores") == [0, 2]
    whole = Ledger(tmp_path)
    assert whole.shards("scores") == [0, 1, 2, 3] and whole.verify() == [] and len(ids(whole)) == 16


@pytest.mark.parametrize("order", [("", "1-of-2", "2-of-2"), ("2-of-2", "1-of-2", ""), ("1-of-2", "", "2-of-2")])
def test_a_shard_that_several_have_made_is_what_its_file_says(tmp_path, order):
    for number, part in enumerate(order):
        Ledger(tmp_path, part).commit("scores", 0, scores(number))
    found = Ledger(tmp_path)
    assert found.verify() == [] and found.rows("scores") == 4
    assert found.table("scores", 0).equals(scores(2))


def test_a_line_says_what_a_script_needs(tmp_path):
    Ledger(tmp_path).commit("scores", 5, scores(0))
    (line,) = (tmp_path / "manifest.jsonl").read_text().splitlines()
    entry = Entry(**json.loads(line))
    assert (entry.stage, entry.shard, entry.rows) == ("scores", 5, 4)
    assert parquet.read_schema(tmp_path / "scores/00005.parquet").equals(SCORES)


def test_a_shard_of_another_version_is_refused(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.commit("scores", 0, scores(0))
    parquet.write_table(scores(0).drop_columns(["extra"]), ledger.path("scores", 0))
    with pytest.raises(ChangedError, match="another version"):
        ledger.table("scores", 0, ["id", "extra"])
