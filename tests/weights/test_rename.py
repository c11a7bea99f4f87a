"""The rename engine: parts, turns, ties and drops in both directions, and every misfit named."""

import pytest
import torch

from capfilt.errors import WeightsError
from capfilt.models.blip import PRESETS, Blip, respecialised
from capfilt.weights.convert import official
from capfilt.weights.rename import Layout, To, fitting, own_shapes, to_foreign, to_own, under

TABLE = Layout(
    "toy",
    {
        "layer.*.query.*": To("blocks.*.qkv.*", part=0, of=3),
        "layer.*.key.*": To("blocks.*.qkv.*", part=1, of=3),
        "layer.*.value.*": To("blocks.*.qkv.*", part=2, of=3),
        "table": To("words"),
        "out.table": To("words"),
        "queue": To("queue", turned=True),
        "numbers": To("numbers", flat=True),
        "position_ids": None,
    },
    {"clock": 7},
)


def own() -> dict[str, torch.Tensor]:
    return {
        "blocks.0.qkv.weight": torch.zeros(6, 4),
        "words": torch.zeros(5, 2),
        "queue": torch.zeros(3, 2),
        "numbers": torch.zeros(3, dtype=torch.long),
        "clock": torch.zeros(1),
    }


def foreign() -> dict[str, torch.Tensor]:
    parts = torch.randn(6, 4).split(2)
    words = torch.randn(5, 2)
    return {
        **{f"layer.0.{name}.weight": part for name, part in zip(("query", "key", "value"), parts, strict=True)},
        "table": words,
        "out.table": words.clone(),
        "queue": torch.randn(2, 3),
        "numbers": torch.tensor([[4, 5, 6]]),
        "position_ids": torch.arange(9),
    }


def test_parts_turns_ties_and_drops():
    given = foreign()
    found = to_own(given, TABLE, own(), "toy")
    assert list(found) == list(own())
    for i, name in enumerate(("query", "key", "value")):
        assert torch.equal(found["blocks.0.qkv.weight"][2 * i :][:2], given[f"layer.0.{name}.weight"])
    assert torch.equal(found["queue"], given["queue"].T)
    assert found["numbers"].tolist() == [4, 5, 6]
    assert found["clock"].item() == 7


def test_there_and_back():
    given = foreign()
    back = to_foreign(to_own(given, TABLE, own(), "toy"), TABLE)
    assert set(back) == set(given) - {"position_ids"}
    assert all(torch.equal(back[name], given[name]) for name in back)


def test_half_precision_is_widened():
    given = {name: x.half() if x.is_floating_point() else x for name, x in foreign().items()}
    assert to_own(given, TABLE, own(), "toy")["words"].dtype == torch.float32


def change(name: str, value: torch.Tensor | None):
    def changed() -> dict[str, torch.Tensor]:
        given = foreign()
        if value is None:
            del given[name]
        else:
            given[name] = value
        return given

    return changed


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (change("layer.0.surprise.weight", torch.zeros(1)), "unknown layer.0.surprise.weight"),
        (change("layer.1.query.weight", torch.zeros(2, 4)), "layer.1.query.weight would fill blocks.1.qkv.weight"),
        (change("queue", None), "missing queue"),
        (change("layer.0.key.weight", None), "missing blocks.0.qkv.weight (2 of its 3 parts are there)"),
        (
            change("layer.0.key.weight", torch.zeros(3, 4)),
            "layer.0.key.weight is (3, 4), blocks.0.qkv.weight takes (2, 4)",
        ),
        (change("queue", torch.zeros(3, 2)), "queue is (2, 3), queue takes (3, 2)"),
        (change("out.table", torch.ones(5, 2)), "out.table should equal the tensor it is tied to (words)"),
    ],
)
def test_each_misfit_is_named(given, said):
    with pytest.raises(WeightsError) as error:
        to_own(given(), TABLE, own(), "some.file")
    assert said in str(error.value) and str(error.value).startswith("some.file: ")
    assert "\n" not in str(error.value)


def test_all_misfits_are_listed_at_once():
    given = foreign() | {"what": torch.zeros(1), "else": torch.zeros(1)}
    del given["queue"]
    with pytest.raises(WeightsError, match=r"3 keys .*unknown what; unknown else; missing queue"):
        to_own(given, TABLE, own(), "x")


def test_a_key_without_a_foreign_name_is_named_backwards():
    with pytest.raises(WeightsError, match="no name for 1 of our keys: surprise"):
        to_foreign(own() | {"surprise": torch.zeros(1)}, TABLE)


def test_a_star_is_one_segment():
    with pytest.raises(WeightsError, match=r"unknown layer\.0\.1\.query\.weight"):
        to_own(foreign() | {"layer.0.1.query.weight": torch.zeros(2, 4)}, TABLE, own(), "x")


def test_position_tables_are_resized_on_request_only():
    table = Layout("vit", under("a.", "b.", {"pos": To("positions", grid=True)}))
    given, want = {"a.pos": torch.randn(1, 1 + 16, 3)}, {"b.positions": torch.zeros(1, 1 + 4, 3)}
    with pytest.raises(WeightsError, match=r"a.pos is \(1, 17, 3\), b.positions takes \(1, 5, 3\)"):
        to_own(given, table, want, "x")
    found = to_own(given, table, want, "x", resize=True)["b.positions"]
    assert found.shape == (1, 5, 3) and torch.equal(found[:, 0], given["a.pos"][:, 0])


# ---- the official layout --------------------------------------------------------------------------------------------


def shaken(model: Blip) -> Blip:
    with torch.no_grad():
        for x in model.state_dict().values():
            if x.is_floating_point():
                x.normal_()
    return model


@pytest.mark.parametrize(
    ("layout", "roles", "queue"),
    [
        (official.PRETRAIN, ("read", "look", "speak"), 32),
        (official.RETRIEVAL, ("read", "look"), 32),
        (official.ITM, ("read", "look"), 0),
        (official.CAPTIONER, ("speak",), 0),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_our_model_goes_out_and_comes_back(layout, roles, queue):
    model = shaken(respecialised(Blip(PRESETS["tiny"]), roles=roles, queue=queue))
    state = model.state_dict()
    back = to_own(to_foreign(state, layout), layout, state, "round trip")
    for key, x in state.items():
        if key not in layout.fresh:
            assert torch.equal(back[key], x), key


def test_the_two_names_of_a_tied_tensor_must_agree():
    state = shaken(Blip(PRESETS["tiny"])).state_dict()
    given = to_foreign(state, official.PRETRAIN)
    name = "text_decoder.bert.encoder.layer.1.crossattention.self.key.weight"
    given[name] = given[name] + 1
    with pytest.raises(WeightsError, match=r"1 keys .* should equal the tensor it is tied to"):
        to_own(given, official.PRETRAIN, state, "x")


def test_an_empty_id_queue_is_nobodys_partner():
    state = Blip(PRESETS["tiny"]).state_dict()
    state["twins.id_queue"].fill_(3)
    found = to_own(to_foreign(state, official.PRETRAIN), official.PRETRAIN, state, "x")
    assert (found["twins.id_queue"] == official.NO_IMAGE).all() and found["twins.id_queue"].dtype == torch.long


def test_two_stars_are_any_number_of_segments():
    table = Layout("t", {"left.**": None, "a.**": To("b.**"), "x.*.**": To("y.*.z.**")})
    given = {"left.over.from.training": torch.ones(1), "a.1.weight": torch.ones(2), "x.3.p.q": torch.ones(3)}
    own = {"b.1.weight": torch.zeros(2), "y.3.z.p.q": torch.zeros(3)}
    found = to_own(given, table, own, "t")
    assert found["b.1.weight"].tolist() == [1, 1] and found["y.3.z.p.q"].tolist() == [1, 1, 1]
    assert set(to_foreign(found, table)) == {"a.1.weight", "x.3.p.q"}
    assert own_shapes(given, table) == {"b.1.weight": (2,), "y.3.z.p.q": (3,)}


def test_what_needs_no_work_is_handed_on_and_an_own_state_may_be_hollow():
    given = foreign()
    with torch.device("meta"):
        hollow = {key: torch.empty_like(x) for key, x in own().items()}
    found = to_own(given, TABLE, hollow, "toy")
    assert found["words"] is given["table"]  # the first of two tied names
    assert not any(x.is_meta for x in found.values())


def test_the_first_fitting_pattern_decides():
    table = {"a.special": None, "a.**": "b.**"}
    assert fitting("a.special", table) is None and fitting("a.1.weight", table) == "b.1.weight"
    with pytest.raises(KeyError, match=r"c\.1"):
        fitting("c.1", table)
