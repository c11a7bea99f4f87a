"""The recipe on collections drawn here, laid out as the real ones are."""

import json

import numpy as np
import pytest
from PIL import Image

from capfilt.clean.stages import Models
from capfilt.errors import DataError
from capfilt.recipes import real_collections as recipe
from capfilt.recipes.kill_loop import model
from capfilt.report.clean import KindOfText, Truth

pytestmark = pytest.mark.filterwarnings("ignore:.*not there")
NOISY = "flickr8k/noisy/val-noisy.jsonl"


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def data(tmp_path):
    """Ten photographs, half with texts that fit; six texts without images."""
    pairs = [{"file": f"{i}.png", "text": f"a red boat {i}"} for i in range(10)]
    lines(tmp_path / NOISY, *pairs)
    known = [pair | {"kind": "swap" if i % 2 else "clean", "match": not i % 2} for i, pair in enumerate(pairs)]
    lines(tmp_path / NOISY.replace(".jsonl", ".truth.jsonl"), *known)
    (tmp_path / "flickr8k/images").mkdir()
    for i in range(10):
        noise = np.random.default_rng(i).integers(0, 256, (64, 80, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"flickr8k/images/{i}.png")
    texts = ["a red boat", "x", "word " * 300, "a blue cone", "two houses", ""]
    lines(tmp_path / "webtext/some.jsonl", *({"text": text} for text in texts))
    return tmp_path


def test_texts_without_images_meet_the_rules_about_texts(data):
    told = recipe.ruled(data / "webtext/some.jsonl")
    assert told["rows"] == 6 and told["rules"] == {"text_long": 1, "text_short": 1}


def test_what_often_stands_is_counted(tmp_path):
    lines(tmp_path / "some.jsonl", *({"text": "stock photo" if i % 2 else f"a boat {'of' * i}"} for i in range(400)))
    assert recipe.ruled(tmp_path / "some.jsonl")["rules"] == {"text_boilerplate": 200}


def test_a_collection_of_known_truth_is_decided_twice(data, tmp_path):
    weights = str(model(tmp_path / "model"))
    found = recipe.real_collections(data, Models(weights, weights, precision="fp32"), tmp_path / "out")
    assert list(found) == [NOISY, "webtext/some.jsonl"]
    told = found[NOISY]["policies"]
    assert list(told) == list(recipe.POLICIES)
    for decided in told.values():
        counts, truth = decided["counts"], decided["truth"]
        assert counts["in"] == sum(counts[word] for word in ("kept", "replaced", "dropped", "failed")) == 10
        assert truth.before == 0.5 and truth.counts == (10, counts["kept"]) and set(truth.auc) == {"ITM", "ITC", "both"}
    assert told["blip, top .4"]["counts"]["kept"] >= 4
    printed = recipe.tables(found)
    widths = {line.count("|") for line in printed.splitlines()[:5]}
    assert len(widths) == 1 and "| texts alone | 6 |" in printed and f"| {NOISY} | fits |" in printed


def test_kinds_and_areas_are_printed():
    counts = {"in": 9, "kept": 2, "replaced": 1, "dropped": 5, "failed": 1}
    kinds = [KindOfText("clean", True, 4, 0, 2), KindOfText("junk", False, 4, 1, 0)]

    def told(truth):
        policies = {name: {"counts": counts, "truth": truth} for name in recipe.POLICIES}
        return recipe.tables({"pool": {"seconds": 2.4, "rules": {"duplicate": 3}, "policies": policies}})

    printed = told(Truth(kinds, {"ITM": 0.75, "both": 1.0}, 5.0))
    assert "| pool | blip | 9 | 2 | 1 | 5 | 1 | duplicate 3 | .500 | 1.000 | .500 | 2 |" in printed
    assert "| junk | no | 4 | 1 | 0 (.000) | 0 (.000) |" in printed and "ITM .750, both 1.000" in printed
    assert "ITC at weight 5" in printed
    assert "AUC" not in told(Truth(kinds[:1]))
    assert "fits" not in told(None)


def test_a_folder_without_any_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds none of"):
        recipe.real_collections(tmp_path, Models("a", "b"), tmp_path / "out")
