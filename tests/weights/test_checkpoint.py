"""Any origin, one model: every layout there and back to the last bit, and each bad file is one line that names it."""

import dataclasses
import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from capfilt.blocks.vit import resize_positions
from capfilt.errors import CapfiltError, ConfigError, WeightsError
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.weights import hub
from capfilt.weights.checkpoint import open_checkpoint
from capfilt.weights.store import OFFICIAL_FILE, official_state, save_as

HEADS = ["vit.heads=2", "text.heads=2"]
KINDS = ("pretrain", "match", "caption", "vqa", "nlvr", "visdial")
LAYOUTS = [("capfilt", kind) for kind in KINDS]
LAYOUTS += [("huggingface", kind) for kind in ("match", "caption", "vqa")]
LAYOUTS += [("official", kind) for kind in KINDS if kind != "visdial"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing here may ask the hub but what asks for it."""

    def asked(*what, **more):
        raise WeightsError(f"asked the network for {what} {more}")

    monkeypatch.setattr(hub, "_fetch", asked)


def file_of(folder: Path, layout: str) -> Path:
    return folder / OFFICIAL_FILE if layout == "official" else folder


def assert_same(found, model, but: tuple[str, ...] = ()) -> None:
    have, want = found.state_dict(), model.state_dict()
    assert set(have) == {name for name in want if not name.startswith("twins.")}
    for name, x in have.items():
        assert not x.is_meta and x.dtype == want[name].dtype, name
        assert torch.equal(x, want[name]) == (name not in but), name


@pytest.mark.parametrize(("layout", "kind"), LAYOUTS)
def test_there_and_back_to_the_last_bit(layout, kind, build, words, tmp_path):
    model = build(kind)
    save_as(model, words, tmp_path, layout)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = open_checkpoint(file_of(tmp_path, layout))
    assert_same(opened.model, model)
    assert opened.model.config == model.config
    assert not opened.model.training
    assert (opened.origin.layout, opened.origin.kind, opened.origin.notes) == (layout, kind, ())
    assert opened.tokenizer.encode(["a red dog"])[0].tolist() == words.encode(["a red dog"])[0].tolist()


@pytest.mark.parametrize("layout", ["capfilt", "official"])
@pytest.mark.parametrize("kind", ["pretrain", "match"])
def test_momentum_is_left_out_and_that_is_said(layout, kind, build, words, tmp_path):
    model = build(kind, queue=8)
    save_as(model, words, tmp_path, layout)
    opened = open_checkpoint(file_of(tmp_path, layout))
    assert_same(opened.model, model)
    assert opened.model.config == dataclasses.replace(model.config, queue=0)
    assert opened.origin.notes == ("momentum twins left out, and queues where there are any",)


@pytest.mark.parametrize("bare", [True, False])
def test_a_lavis_retrieval_file(bare, build, words, tmp_path):
    model = build("match", queue=8)
    state = official_state(model)
    state["queue_ptr"] = state.pop("ptr_queue")
    torch.save(
        state if bare else {"model": state, "epoch": 5, "config": {"lr": 1e-5}}, tmp_path / "checkpoint_best.pth"
    )
    words.save(tmp_path)
    opened = open_checkpoint(tmp_path / "checkpoint_best.pth", sets=HEADS)
    assert_same(opened.model, model)


@pytest.mark.parametrize("kind", ["pretrain", "match", "caption", "vqa", "nlvr"])
def test_sizes_of_a_pth_are_read_off_its_tensors(kind, build, words, tmp_path):
    model = build(kind, px=40)
    torch.save({"model": official_state(model)}, tmp_path / "model.pth")
    words.save(tmp_path)
    with pytest.raises(WeightsError, match=r"vit is 32 wide.*sets=\['vit.heads=N'\]"):
        open_checkpoint(tmp_path / "model.pth")
    opened = open_checkpoint(tmp_path / "model.pth", sets=HEADS)
    assert_same(opened.model, model)
    want = dataclasses.replace(model.config, text=dataclasses.replace(model.config.text, dropout=0.1))
    want = dataclasses.replace(want, embed=256) if kind == "caption" else want  # compares nothing
    assert opened.model.config == want


@pytest.mark.parametrize("left", ["words", "head", "decoder", "encoder"])
def test_tied_tensors_may_be_there_once(left, build, words, tmp_path):
    """A file may hold either name of a tied tensor; which one is up to who wrote it."""
    model = build("pretrain")
    state = official_state(model)
    tied = ("crossattention", "intermediate", ".output.dense", ".output.LayerNorm", "embeddings")
    gone = {
        "words": lambda n: n.endswith("word_embeddings.weight"),
        "head": lambda n: "predictions.decoder" in n,
        "decoder": lambda n: n.startswith("text_decoder.bert") and any(t in n for t in tied) and ".attention." not in n,
        "encoder": lambda n: n.startswith("text_encoder") and any(t in n for t in tied) and ".attention." not in n,
    }[left]
    less = {name: x for name, x in state.items() if not gone(name)}
    assert len(less) < len(state)
    torch.save(less, tmp_path / "x.pth")
    words.save(tmp_path)
    assert_same(open_checkpoint(tmp_path / "x.pth", sets=HEADS).model, model)


@pytest.mark.parametrize("left", ["text_decoder.bert.embeddings.word_embeddings.weight", "predictions.decoder"])
def test_hugging_face_with_and_without_the_tied_table(left, build, words, tmp_path):
    model = build("caption")
    save_as(model, words, tmp_path, "huggingface")
    held = load_file(tmp_path / "model.safetensors")
    save_file({n: x.clone() for n, x in held.items() if left not in n}, tmp_path / "model.safetensors")
    assert_same(open_checkpoint(tmp_path).model, model)


@pytest.mark.parametrize("form", ["bin", "safetensors shards", "bin shards", "half precision", "the file itself"])
def test_hugging_face_files_of_every_form(form, build, words, tmp_path):
    model = build("vqa")
    with torch.no_grad():
        for x in model.parameters():
            x.copy_(x.half())
    save_as(model, words, tmp_path, "huggingface")
    whole = tmp_path / "model.safetensors"
    held = {name: x.clone() for name, x in load_file(whole).items()}
    if form == "half precision":
        save_file({name: x.half() for name, x in held.items()}, whole)
    elif form != "the file itself":
        whole.unlink()
    if form == "bin":
        torch.save(held, tmp_path / "pytorch_model.bin")
    if form.endswith("shards"):
        first = "model.safetensors" if form.startswith("safe") else "pytorch_model.bin"
        names, shards = sorted(held), {}
        for i in (0, 1):
            shard = first.replace(".", f"-0000{i + 1}-of-00002.")
            part = {n: held[n] for n in names[i::2]}
            shards |= dict.fromkeys(part, shard)
            (save_file if form.startswith("safe") else torch.save)(part, tmp_path / shard)
        (tmp_path / f"{first}.index.json").write_text(json.dumps({"weight_map": shards}))
    found = open_checkpoint(whole if form == "the file itself" else tmp_path)
    assert_same(found.model, model)
    if form == "the file itself":  # and no other beside it
        save_file({name: x + 1 for name, x in held.items()}, tmp_path / "other.safetensors")
        found = open_checkpoint(tmp_path / "other.safetensors").model
        assert torch.equal(found.vit.cls, model.vit.cls + 1)
    if form.endswith("shards"):
        (tmp_path / shard).unlink()
        with pytest.raises(WeightsError, match=f"{shard}: no such file"):
            open_checkpoint(tmp_path)


@pytest.mark.parametrize("layout", ["capfilt", "huggingface", "official"])
@pytest.mark.parametrize("how", [{"px": 48}, {"sets": ["vit.px=48"]}])
def test_another_image_size_resizes_positions_alone(layout, how, build, words, tmp_path):
    model = build("match")
    save_as(model, words, tmp_path, layout)
    opened = open_checkpoint(file_of(tmp_path, layout), **how)
    want = resize_positions(model.vit.positions, 37)
    assert torch.equal(opened.model.vit.positions, want)
    assert opened.origin.notes == ("positions resized from 16 to 36 patches",)
    model.config = dataclasses.replace(model.config, vit=dataclasses.replace(model.config.vit, px=48))
    with torch.no_grad():
        model.vit.positions = torch.nn.Parameter(want)
    assert_same(opened.model, model)
    assert opened.model.config == model.config


def test_positions_of_another_size_are_not_resized_unasked(build, words, tmp_path):
    save_as(build("match"), words, tmp_path, "huggingface")
    about = json.loads((tmp_path / "config.json").read_text())
    about["vision_config"]["image_size"] = 48
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(WeightsError, match=r"position_embedding is \(1, 17, 32\), vit.positions takes \(1, 37, 32\)"):
        open_checkpoint(tmp_path)


def foreign_config(folder: Path, **changes) -> None:
    """A config.json as others write it: without what ours adds, its vision eps wrong."""
    about = json.loads((folder / "config.json").read_text())
    del about["capfilt"]
    about["vision_config"]["layer_norm_eps"] = 1e-5
    for name, value in changes.items():
        about["text_config"][name] = value
    (folder / "config.json").write_text(json.dumps(about))


def test_a_wrong_eps_is_mended_with_a_warning_that_says_how_to_get_it_back(build, words, tmp_path):
    save_as(build("caption"), words, tmp_path, "huggingface")
    foreign_config(tmp_path)
    with pytest.warns(UserWarning, match=r"1e-05; 1e-06 is used.*sets=\['vit.eps=1e-05'\]"):
        opened = open_checkpoint(tmp_path)
    assert opened.model.config.vit.eps == opened.model.vit.norm.eps == 1e-6
    assert opened.model.config.prompt == "a picture of "
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_checkpoint(tmp_path, sets=["vit.eps=1e-5"]).model.vit.norm.eps == 1e-5


def test_ids_that_differ_between_config_and_vocabulary(build, words, tmp_path):
    save_as(build("caption"), words, tmp_path, "huggingface")
    foreign_config(tmp_path, bos_token_id=7, layer_norm_eps=1e-12)
    with pytest.warns(UserWarning), pytest.raises(WeightsError, match="by its config dec is 7, but the vocabulary"):
        open_checkpoint(tmp_path)


def without_words(path: Path) -> None:
    """The .pth as others write it: no vocabulary in it."""
    held = torch.load(path, weights_only=True)
    del held["capfilt"]["tokenizer"]
    torch.save(held, path)


def test_two_files_in_a_folder_keep_their_own_words(build, words, tmp_path):
    texts = ["some other words than these, quite a few of them", "which make as many pieces as the first ones have"]
    other = TextTokenizer.train(texts, len(words))
    assert len(other) == len(words)
    model = build("caption")
    save_as(model, words, tmp_path / "a.pth", "official")
    save_as(model, other, tmp_path / "b.pth", "official")
    for name, own in (("a.pth", words), ("b.pth", other)):
        assert open_checkpoint(tmp_path / name).tokenizer.to_json() == own.to_json()


def test_a_vocabulary_is_taken_from_where_it_is_given(build, words, tmp_path, monkeypatch):
    model, home, apart = build("caption"), tmp_path / "model", tmp_path / "words"
    save_as(model, words, home, "official")
    without_words(home / OFFICIAL_FILE)
    words.save(tmp_path)
    apart.mkdir()
    shutil.copy(tmp_path / "tokenizer.json", apart)
    for vocab in (apart, str(tmp_path / "tokenizer.json")):
        assert_same(open_checkpoint(home / OFFICIAL_FILE, vocab=vocab).model, model)
    asked = []
    monkeypatch.setattr(hub, "vocabulary", lambda name="usual", offline=False: asked.append((name, offline)) or apart)
    open_checkpoint(home / OFFICIAL_FILE)
    open_checkpoint(home / OFFICIAL_FILE, vocab="bert-base-cased", offline=True)
    open_checkpoint(home / OFFICIAL_FILE, vocab="some/model")
    assert asked == [("usual", False), ("bert-base-cased", True), ("some/model", False)]


def test_no_vocabulary_and_a_wrong_one(build, words, tmp_path):
    save_as(build("caption"), words, tmp_path, "official")
    without_words(tmp_path / OFFICIAL_FILE)
    TextTokenizer.train(["some other words than these"], 50).save(tmp_path)
    with pytest.raises(WeightsError, match=r"its word table has \d+ rows, the vocabulary \d+ entries"):
        open_checkpoint(tmp_path / OFFICIAL_FILE)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"no vocabulary lies beside the weights.*give one with vocab="):
        open_checkpoint(tmp_path / OFFICIAL_FILE)
    with pytest.raises(WeightsError, match=r"nowhere.txt: no such file or folder"):
        open_checkpoint(tmp_path / OFFICIAL_FILE, vocab="nowhere.txt")


class Bomb:
    """Would run when it is unpickled carelessly."""

    def __reduce__(self):
        return print, ("boom",)


def spoil(name: str, folder: Path) -> Path:
    """A bad file or folder of that name; what was good lies in `folder`."""
    pth, st, about = folder / OFFICIAL_FILE, folder / "model.safetensors", folder / "config.json"
    if name in ("cut.pth", "garbage.pth"):
        data = pth.read_bytes()[: pth.stat().st_size // 2] if name == "cut.pth" else b"<!doctype html><html>"
        pth.write_bytes(data)
    elif name == "code.pth":
        torch.save({"model": {"visual_encoder.cls_token": torch.zeros(1), "x": Bomb()}}, pth)
    elif name == "old code.pth":
        torch.save({"model": Bomb()}, pth, _use_new_zipfile_serialization=False)
    elif name == "other.pth":
        torch.save({"model": {f"layer.{i}.weight": torch.zeros(1) for i in range(9)}}, pth)
    elif name == "number.pth":
        torch.save(3, pth)
    elif name == "optimiser.pth":
        torch.save({"optimizer": {}, "epoch": 3}, pth)
    elif name == "unknown key":
        torch.save(torch.load(pth, weights_only=True)["model"] | {"surprise.weight": torch.zeros(1)}, pth)
    elif name == "missing key":
        state = torch.load(pth, weights_only=True)["model"]
        torch.save({n: x for n, x in state.items() if n != "visual_encoder.blocks.1.norm1.bias"}, pth)
    else:
        pth.unlink()
        changes = {"BlipModel": {"architectures": ["BlipModel"]}, "clip": {"model_type": "clip"}}
        if name in changes:
            about.write_text(json.dumps({"model_type": "blip"} | changes[name]))
        elif name == "cut folder":
            st.write_bytes(st.read_bytes()[:5000])
        elif name == "weightless":
            st.unlink()
        elif name == "run":
            (folder / "models").mkdir()
            shutil.copytree(folder, folder / "models/noisy", ignore=lambda *_: ["models"])
            about.write_text("{}")
        elif name == "from the future":
            about.write_text(json.dumps({"model": "blip9", "config": {}}))
        return folder
    return pth


BAD = {
    "cut.pth": r"model.pth: damaged or cut off .*; download it again",
    "garbage.pth": r"not a checkpoint of torch \(it begins with b'<!doctype html>",
    "code.pth": r"holds code, not only tensors \(.*print\), and is not run",
    "old code.pth": r"holds code, not only tensors \(.*print\), and is not run",
    "other.pth": r"no BLIP that is known here by these keys: layer.0.weight, .* and 3 more",
    "number.pth": r"holds a int; a state dict is needed",
    "optimiser.pth": r"no state dict of tensors, bare or under 'model' \(it has optimizer, epoch\)",
    "unknown key": r"1 keys do not fit the layout official captioner: unknown surprise.weight",
    "missing key": r"1 keys .*: missing vit.blocks.1.norm1.bias",
    "BlipModel": r"BlipModel is a class without published weights",
    "clip": r"config.json describes \(clip\), not a BLIP",
    "cut folder": r"not a whole safetensors file",
    "weightless": r"no weights here; model.safetensors or pytorch_model.bin is needed",
    "run": r"no model here .*; there are models below: .*models/noisy",
    "from the future": r"model 'blip9' is not known; known: 'blip', 'blip-vqa'",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_checkpoint_is_one_line(name, build, words, tmp_path, capsys):
    model = build("caption")
    save_as(model, words, tmp_path, "official")
    save_as(model, words, tmp_path, "capfilt")
    path = spoil(name, tmp_path)
    if path == tmp_path / OFFICIAL_FILE:
        (tmp_path / "config.json").unlink()
    with pytest.raises(CapfiltError, match=BAD[name]) as error:
        open_checkpoint(path, sets=HEADS)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    assert "boom" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["./nothing", "/no/such/thing", "~/no-such", "x.pth", "x.bin", "a/b.safetensors"])
def test_what_looks_like_a_path_is_never_asked_for_elsewhere(name):
    with pytest.raises(WeightsError, match="no such file or folder"):
        open_checkpoint(name)


def test_what_is_neither_a_path_nor_a_hub_id():
    with pytest.raises(WeightsError, match=r"blip: neither a file or folder here nor a hub id \(owner/name\)"):
        open_checkpoint("blip")
    with pytest.raises(WeightsError, match=r"asked the network for .*Salesforce/blip-vqa-base.*abc.*True"):
        open_checkpoint("Salesforce/blip-vqa-base", revision="abc", offline=True)


def test_a_folder_here_wins_over_a_hub_id(build, words, tmp_path, monkeypatch):
    save_as(build("caption"), words, tmp_path / "owner/name")
    monkeypatch.chdir(tmp_path)
    assert open_checkpoint("owner/name").origin.where == "owner/name"
    with pytest.raises(ConfigError, match="only models on the hub have revisions"):
        open_checkpoint("owner/name", revision="main")


def test_from_the_hub(build, words, tmp_path, monkeypatch):
    save_as(build("match"), words, tmp_path / "0123456789abcdef", "huggingface")
    monkeypatch.setattr(hub, "_fetch", lambda repo, revision, offline, patterns: tmp_path / "0123456789abcdef")
    assert open_checkpoint("owner/name").origin.where == "owner/name (0123456789ab)"


def test_settings_that_do_not_exist_or_cannot_be(build, words, tmp_path):
    save_as(build("caption"), words, tmp_path)
    with pytest.raises(ConfigError, match=r"unknown setting 'vit.epps'. Did you mean 'eps'"):
        open_checkpoint(tmp_path, sets=["vit.epps=1"])
    with pytest.raises(WeightsError, match=r"text.heads=5 does not divide the width 32"):
        open_checkpoint(tmp_path, sets=["text.heads=5"])
    with pytest.raises(WeightsError, match="an image of 50 px is no multiple of its patch, 8"):
        open_checkpoint(tmp_path, px=50)
    assert open_checkpoint(tmp_path, sets=["text.heads=4"]).model.text.layers[0].causal.heads == 4


def test_a_folder_in_the_originals_layout_is_loaded_as_one(build, words, tmp_path):
    model = build("vqa")
    save_as(model, words, tmp_path, "official")
    assert_same(open_checkpoint(tmp_path).model, model)


def test_numbers_that_are_none_are_told(build, words, tmp_path):
    model = build("caption")
    with torch.no_grad():
        model.vit.norm.weight[0] = float("nan")
    save_as(model, words, tmp_path)
    with pytest.raises(WeightsError, match=r"vit\.norm\.weight holds numbers that are none"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": ["x"]}, "no model here"),
        ({"model": "x"}, "is not known"),
        ({"config": None}, "no settings under 'config'"),
        ({"config": []}, "no settings under 'config'"),
    ],
)
def test_damaged_settings_are_one_line(build, words, tmp_path, change, why):
    save_as(build("caption"), words, tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**about, **change}))
    with pytest.raises(WeightsError, match=why):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("sets", [["text.heads=0"], ["text.heads=-1"], ["vit.patch=0"], ["vit.px=-16"]])
def test_sizes_are_at_least_one(build, words, tmp_path, sets):
    save_as(build("caption"), words, tmp_path)
    with pytest.raises(WeightsError, match="sizes are at least 1"):
        open_checkpoint(tmp_path, sets=sets)
    with pytest.raises(CapfiltError):
        open_checkpoint(tmp_path, px=0)


def test_an_index_that_is_none_is_one_line(build, words, tmp_path):
    save_as(build("caption"), words, tmp_path, "huggingface")
    (tmp_path / "model.safetensors").rename(tmp_path / "a.safetensors")
    for held in ([], {"weight_map": {"x": 3}}):
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(held))
        with pytest.raises(WeightsError, match="no weight_map of files beside it"):
            open_checkpoint(tmp_path)


def test_what_stands_in_a_folder_stays(build, words, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps({"model": {"vit": {}}, "pretrain": {}}))
    (tmp_path / "file").write_text("mine")
    for out, layout in (("run", "capfilt"), ("run", "huggingface"), ("file", "capfilt"), ("x.pth", "capfilt")):
        with pytest.raises(ConfigError):
            save_as(build("caption"), words, tmp_path / out, layout)
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "x.pth").exists()
    with pytest.raises(WeightsError, match="no model here"):
        open_checkpoint(tmp_path / "run")


def test_weights_may_be_read_by_whom_the_folder_lets(build, words, tmp_path):
    save_as(build("caption"), words, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode
