"""Every task from official files to its numbers and to what is handed in, with small models of random weights."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from capfilt.blocks.med import SpecialIds
from capfilt.cli.evaluate import told
from capfilt.errors import ConfigError, DataError, WeightsError
from capfilt.files import read_json
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models import blip_nlvr, blip_visdial, blip_vqa
from capfilt.models.blip import PRESETS, Blip
from capfilt.predict.answerer import Answerer
from capfilt.predict.decode import BEAM, NOCAPS
from capfilt.predict.faithful import Faithful
from capfilt.predict.predictor import Predictor
from capfilt.predict.reasoner import Reasoner
from capfilt.predict.use import load
from capfilt.recipes.measured_tasks import Files
from capfilt.recipes.measuring import measure
from capfilt.weights import store

TEXTS = ["a red dog is left of a cat", "two cats and one bird", "the sky is blue", "yes no what colour is it how many"]
SHORT = ("kind.decoding.max_length=8", "kind.decoding.min_length=1")


def save(model, tokenizer, out):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    store.save(model, tokenizer, out)
    return str(out)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    """A folder for each kind of model."""
    at = tmp_path_factory.mktemp("models")
    tokenizer = TextTokenizer.train(TEXTS, 120)
    t = tokenizer
    special = SpecialIds(t.pad_id, t.cls_id, t.sep_id, t.dec_id, t.enc_id)
    torch.manual_seed(0)
    found = {}
    for name, roles in (("caption", ("speak",)), ("match", ("read", "look"))):
        config = dataclasses.replace(PRESETS["tiny"].with_words(tokenizer), queue=0, roles=roles)
        found[name] = save(Blip(config), tokenizer, at / name)
    kinds = ((blip_vqa, "BlipVqa"), (blip_nlvr, "BlipNlvr"), (blip_visdial, "BlipVisdial"))
    for module, name in kinds:
        tiny = module.PRESETS["tiny"]
        text = dataclasses.replace(tiny.text, vocab=len(tokenizer))
        model = getattr(module, name)(dataclasses.replace(tiny, text=text, special=special))
        found[name] = save(model, tokenizer, at / name)
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Pictures under official names, one of them gone; clips as folders of frames."""
    at = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)

    def draw(path):
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(path)

    for i in range(1, 5):
        draw(at / "val2014" / f"COCO_val2014_{i:012d}.jpg")
        draw(at / f"{i}.jpg")
        draw(at / f"VisualDialog_val2018_{i:012d}.jpg")
        for side in (0, 1):
            draw(at / "dev" / f"dev-{i}-0-img{side}.png")
        for frame in range(2):
            draw(at / f"video{i}" / f"{frame}.png")
    return at


def put(root, value, name="rows.json"):
    path = root / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def karpathy(split, numbers):
    images = [
        {"filename": f"{i}.jpg", "cocoid": 100 + i, "split": split, "sentences": [{"raw": TEXTS[i % 4]}] * 2}
        for i in numbers
    ]
    return {"images": images}


def test_captions(models, root, tmp_path):
    files = Files((put(root, karpathy("val", [1, 2, 9])),), str(root))
    found = measure(models["caption"], "caption", files, tmp_path / "out", ["split=val", *SHORT])
    assert found["numbers"]["rows"] == 2 and 0 <= found["numbers"]["cider"] <= 10
    assert found["unread"] == {"missing_file": 1}
    assert found["model"]["kind"] == "caption" and found["settings"]["split"] == "val" and found["machine"]["torch"]
    handed_in = read_json(tmp_path / "out" / "captions.json")
    assert [row["image_id"] for row in handed_in] == [101, 102]
    pictures = [str(root / f"{i}.jpg") for i in (1, 2)]
    said = load(models["caption"]).caption(pictures, max_length=8, min_length=1)
    assert [row["caption"] for row in handed_in] == [caption.text for caption in said]
    assert read_json(tmp_path / "out" / "results.json") == found
    with pytest.raises(DataError, match="none of 3 rows can be used"):
        measure(models["caption"], "caption", files)  # the split is test
    for precision in ("fp32", "int8"):  # the same model, its tower's matrices in bytes
        cost = measure(models["caption"], "caption", files, sets=["split=val", f"precision={precision}", *SHORT])
        assert cost["settings"]["precision"] == precision and cost["numbers"].keys() == found["numbers"].keys()
    with pytest.raises(ConfigError, match="precision='int4'"):
        measure(models["caption"], "caption", files, sets=["split=val", "precision=int4", *SHORT])


def test_nocaps_has_its_own_decoding_and_domains(models, root, tmp_path):
    images = [{"id": i, "file_name": f"{i}.jpg", "domain": d} for i, d in ((1, "in-domain"), (2, "out-domain"))]
    notes = [{"image_id": i, "caption": text} for i in (1, 2) for text in TEXTS]
    known = Files((put(root, {"images": images, "annotations": notes}),))
    found = measure(models["caption"], "caption", known, sets=SHORT)
    assert found["settings"]["kind"]["decoding"]["repetition_penalty"] == NOCAPS.repetition_penalty
    assert {"in-domain", "out-domain"} < found["numbers"].keys()
    chosen = measure(models["caption"], "caption", known, sets=[*SHORT, "kind.decoding.repetition_penalty=1.0"])
    assert chosen["settings"]["kind"]["decoding"]["repetition_penalty"] == 1.0 == BEAM.repetition_penalty
    secret = Files((put(root, {"images": images}, "test.json"),))
    with pytest.raises(ConfigError, match="its truth is kept back; give --out"):
        measure(models["caption"], "caption", secret, sets=SHORT)
    found = measure(models["caption"], "caption", secret, tmp_path, SHORT)
    assert found["numbers"] == {"rows": 0, "kept_back": 2} and len(read_json(tmp_path / "captions.json")) == 2
    assert next(told(found, tmp_path)) == "the truth of 2 rows is kept back: predictions only"


def test_retrieval(models, root, tmp_path, monkeypatch):
    rows = [{"image": f"{i}.jpg", "caption": [TEXTS[i % 4], f"{TEXTS[i % 4]} too"]} for i in (1, 2, 3, 4, 9)]
    files = Files((put(root, rows),), str(root))
    found = measure(models["match"], "retrieval", files, tmp_path, ["kind.k=2"])
    assert {"tr1", "ir10", "itc_tr1"} < found["numbers"].keys() and found["numbers"]["rows"] == 4
    handed_in = read_json(tmp_path / "ranks.json")
    assert len(handed_in) == 4 + 8 and {*handed_in[0]} == {"image_id", "rank", "itc_rank"}
    monkeypatch.setattr("capfilt.data.pictures.Decoders", None)  # pictures are not decoded again
    assert measure(models["match"], "retrieval", files, tmp_path, ["kind.k=2"]) == found
    with pytest.raises(ConfigError, match="holds pictures of other files"):
        measure(models["match"], "retrieval", files, tmp_path, ["limit=2"])


def vqa_files(root, answered=True):
    questions = [{"image_id": i % 3 + 1, "question": f"what colour is {i}?", "question_id": 70 + i} for i in range(5)]
    notes = [
        {"question_id": q["question_id"], "answers": [{"answer": "yes"}] * 10, "answer_type": "yes/no"}
        for q in questions
    ]
    paths = [put(root, {"data_subtype": "val2014", "questions": questions}, "questions.json")]
    return (*paths, put(root, {"annotations": notes}, "annotations.json")) if answered else tuple(paths)


def test_questions(models, root, tmp_path):
    candidates = put(root, ["yes", "no", "red", "two"], "answer_list.json")
    files = Files(vqa_files(root), str(root))
    ranked = measure(models["BlipVqa"], "vqa", files, tmp_path, [f"kind.candidates={candidates}", "kind.k=4"])
    answers = read_json(tmp_path / "answers.json")
    assert [row["question_id"] for row in answers] == [70, 71, 72, 73, 74]
    share = np.mean([row["answer"] == "yes" for row in answers])
    assert ranked["numbers"] == {"overall": share, "yes/no": share, "rows": 5}
    picture = str(root / "val2014" / "COCO_val2014_000000000001.jpg")
    one = load(models["BlipVqa"]).ask(picture, "what colour is 0?", candidates=["yes", "no", "red", "two"])
    assert answers[0]["answer"] == one.text
    free = measure(models["BlipVqa"], "vqa", Files(vqa_files(root, False), str(root)), tmp_path / "free")
    assert free["numbers"] == {"rows": 0, "kept_back": 5} and len(read_json(tmp_path / "free" / "answers.json")) == 5


@pytest.mark.parametrize(
    ("task", "model", "switch"),
    [("vqa", "BlipVqa", "question_cls"), ("retrieval", "match", "match_cls"), ("nlvr2", "BlipNlvr", "random_swap")],
)
def test_switches_reach_the_model(models, root, monkeypatch, task, model, switch):
    worker = {"vqa": Answerer, "retrieval": Predictor, "nlvr2": Reasoner}[task]
    seen, made = [], worker.__init__
    monkeypatch.setattr(worker, "__init__", lambda self, *a, **k: seen.append(k["faithful"]) or made(self, *a, **k))
    paths = {
        "vqa": vqa_files(root),
        "retrieval": [put(root, karpathy("test", [1, 2]))],
        "nlvr2": [put(root, '{"identifier": "dev-1-0-0", "sentence": "one is left", "label": "True"}', "nlvr.json")],
    }
    files = Files(tuple(paths[task]), str(root))
    measure(models[model], task, files, sets=[f"faithful.{switch}=true"])
    assert seen == [Faithful.of(switch)]
    with pytest.raises(ConfigError, match=rf"faithful.images_as_stored: --task {task} heeds {switch}"):
        measure(models[model], task, files, sets=["faithful.images_as_stored=true"])


def test_statements(models, root, tmp_path):
    rows = [
        {"identifier": f"dev-{i}-0-{j}", "sentence": f"the {w} dog is left", "label": "True"}
        for i in (1, 2, 3, 4, 9)
        for j, w in enumerate(("red", "blue", "one"))
    ]
    files = Files((put(root, "\n".join(map(json.dumps, rows))),), str(root))
    found = measure(models["BlipNlvr"], "nlvr2", files, tmp_path)
    lines = [line.split(",") for line in (tmp_path / "verdicts.csv").read_text().splitlines()]
    assert [name for name, _ in lines] == [row["identifier"] for row in rows[:12]]
    assert found["numbers"]["accuracy"] == np.mean([said == "True" for _, said in lines])
    assert (found["numbers"]["rows"], found["unread"]) == (12, {"missing_file": 3})
    swapped = measure(models["BlipNlvr"], "nlvr2", files, tmp_path, ["faithful.random_swap=true"])
    assert swapped == measure(models["BlipNlvr"], "nlvr2", files, tmp_path, ["faithful.random_swap=true"])


def test_dialogues(models, root, tmp_path):
    turn = {"question": 0, "answer": 1, "answer_options": [0, 1, 2], "gt_index": 1}
    dialogs = [{"image_id": i, "caption": "a dog", "dialog": [turn, turn]} for i in (1, 2, 9)]
    data = {"questions": ["is it red?"], "answers": ["no", "yes", "two"], "dialogs": dialogs}
    dense = [{"image_id": 2, "round_id": 1, "gt_relevance": [0.5, 1.0, 0.0]}]
    talk = put(root, {"split": "val", "data": data}, "talk.json")
    found = measure(models["BlipVisdial"], "visdial", Files((talk, put(root, dense, "dense.json"))), tmp_path)
    handed_in = read_json(tmp_path / "rankings.json")
    assert [(row["image_id"], row["round_id"]) for row in handed_in] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all(sorted(row["ranks"]) == [1, 2, 3] for row in handed_in)
    assert found["numbers"]["mrr"] == pytest.approx(np.mean([1 / row["ranks"][1] for row in handed_in]))
    assert 0 < found["numbers"]["ndcg"] <= 1 and found["unread"] == {"missing_file": 1}


def test_clips(models, root, tmp_path):
    table = "key,vid_key,video_id,sentence\n" + "".join(f"r,m,video{i},{TEXTS[i % 4]}\n" for i in (1, 2, 3, 9))
    films = Files((put(root, table, "test.csv"),))
    found = measure(models["match"], "video-retrieval", films, tmp_path / "r", ["kind.suffix=", "kind.frames=2"])
    assert (found["numbers"]["rows"], found["numbers"]["r5"], found["unread"]) == (3, 1.0, {"missing_file": 1})
    assert [row["video_id"] for row in read_json(tmp_path / "r" / "ranks.json")] == ["video1", "video2", "video3"]
    asked = [{"id": i, "video_id": i, "question": "what colour is it?", "answer": "red"} for i in (1, 2)]
    candidates = f"kind.candidates={put(root, 'red', 'one.txt')}"
    files = Files((put(root, asked, "qa.json"),))
    found = measure(
        models["BlipVqa"], "video-qa", files, tmp_path / "qa", ["kind.suffix=", "kind.frames=3", candidates]
    )
    assert found["numbers"] == {"overall": 1.0, "rows": 2}
    assert np.load(tmp_path / "qa" / "pictures" / "pictures.npy", mmap_mode="r").shape == (2, 3, 32, 32, 3)


def test_what_cannot_be_is_one_line(models, root, tmp_path):
    files = Files((put(root, karpathy("test", [9])),))
    with pytest.raises(ConfigError, match="a match model; --task caption needs one that can speak"):
        measure(models["match"], "caption", files)
    with pytest.raises(ConfigError, match="a caption model; --task vqa needs a BlipVqa"):
        measure(models["caption"], "vqa", files)
    with pytest.raises(ConfigError, match="task 'talk' is not one of caption, retrieval"):
        measure(models["match"], "talk", files)
    with pytest.raises(ConfigError, match="caption: nothing to measure with; give --data"):
        measure(models["caption"], "caption", Files(()))
    with pytest.raises(ConfigError, match=r"unknown setting 'kind.candidates'"):
        measure(models["caption"], "caption", files, sets=["kind.candidates=x"])
    with pytest.raises(ConfigError, match="limit=0"):
        measure(models["caption"], "caption", files, sets=["limit=0"])
    with pytest.raises(DataError, match=r"none of 1 files can be read; the first, .*9\.jpg: missing_file"):
        measure(models["caption"], "caption", files)
    with pytest.raises(WeightsError, match="no such file or folder"):
        measure(str(tmp_path / "gone"), "caption", files)


def test_what_readers_leave_out_is_in_the_results(models, root):
    rows = [{"image": "1.jpg", "caption": ["a dog"]}, {"image": "2.jpg"}, {"image": "3.jpg", "caption": "two"}]
    with pytest.warns(UserWarning, match="1 of 3 rows left out: no 'caption'"):
        found = measure(models["match"], "retrieval", Files((put(root, rows),)))
    assert len(found["notes"]) == 1 and "1 of 3 rows left out" in found["notes"][0]
