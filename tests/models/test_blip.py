"""BLIP: its size, its sharing, its roles, and that it learns."""

import dataclasses

import pytest
import torch

from capfilt.blocks.past import GrowingPast
from capfilt.blocks.vit import resize_positions
from capfilt.errors import ConfigError
from capfilt.models.blip import CAPTIONING, PRESETS, RETRIEVAL, Blip, Objective, parameter_count, respecialised
from capfilt.pair import Batch

TINY = PRESETS["tiny"]


def loud(model: Blip) -> Blip:
    """Large random weights and biases, so that no bug hides below a tolerance."""
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim:
                p.normal_(0, 0.25)
    return model.eval()


def a_batch(size: int = 4, length: int = 7, px: int = 32, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(7, 60, (size, length), generator=g)
    ids[:, 0], mask = 2, torch.ones(size, length, dtype=torch.long)
    mask[1, 4:] = 0
    ids = ids * mask
    return Batch(torch.randn(size, 3, px, px, generator=g), ids, mask, torch.arange(size), torch.arange(size))


def losses(
    model: Blip, batch: Batch, objective: Objective | None = None, alpha: float = 0.4
) -> dict[str, torch.Tensor]:
    uniform = torch.rand(2, len(batch), generator=torch.Generator().manual_seed(1))
    return model.losses(batch, objective or Objective(), alpha, uniform)


@pytest.mark.parametrize(("name", "count"), [("base", 252_441_919), ("large", 474_729_023)])
def test_parameters_are_the_papers(name, count):
    assert parameter_count(PRESETS[name]) == count


def test_roles_share_all_but_self_attention():
    model = Blip(TINY)
    layer = model.text.layers[0]
    names = {n for n, _ in layer.named_parameters()}
    assert {n.split(".")[0] for n in names} == {
        *("bidirectional", "bidirectional_norm", "causal", "causal_norm", "cross", "cross_norm", "fc1", "fc2", "norm")
    }
    assert model.text.word_logits(torch.zeros(1, 32)).shape[-1] == model.text.words.num_embeddings


@pytest.mark.parametrize("objective", [Objective(), RETRIEVAL, CAPTIONING])
def test_every_loss_is_finite_and_reaches_its_parts(objective):
    model = loud(Blip(TINY)).train()
    found = losses(model, a_batch(), objective)
    assert set(found) == set(objective.losses)
    torch.stack(list(found.values())).sum().backward()
    assert all(torch.isfinite(v) for v in found.values())
    untouched = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    if objective.losses == ("itc", "itm", "lm"):
        assert not untouched
    assert not any(p.grad is not None for p in model.twins.parameters())


def test_padding_changes_nothing():
    model, batch = loud(Blip(TINY)).train(), a_batch()
    wide = dataclasses.replace(
        batch,
        ids=torch.nn.functional.pad(batch.ids, (0, 3)),
        mask=torch.nn.functional.pad(batch.mask, (0, 3)),
    )
    twin = loud(Blip(TINY)).train()
    twin.load_state_dict(model.state_dict())
    for name, value in losses(model, batch).items():
        assert value.item() == pytest.approx(losses_of(twin, wide, name), abs=1e-5), name
        twin.load_state_dict(model.state_dict())


def losses_of(model: Blip, batch: Batch, name: str) -> float:
    state = {k: v.clone() for k, v in model.state_dict().items()}
    value = losses(model, batch)[name].item()
    model.load_state_dict(state)
    return value


def test_equal_pairs_two_by_two_never_nan():
    model, batch = loud(Blip(TINY)).train(), a_batch(2)
    same = dataclasses.replace(batch, text_id=torch.zeros(2, dtype=torch.long))
    found = losses(model, same)
    torch.stack(list(found.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_given_wrong_texts_take_the_place_of_drawn_ones():
    torch.manual_seed(0)
    model, batch = loud(Blip(TINY)).eval(), a_batch()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("norm.weight"):
                p.fill_(1.0)  # at .25 a text hardly reaches the head
    extra = torch.randint(7, 60, (4, 9))
    some = torch.zeros(4, 9, dtype=torch.long)
    plain = losses(model, batch)["itm"].item()
    nothing = dataclasses.replace(batch, extra_ids=extra, extra_mask=some)
    assert losses(model, nothing)["itm"].item() == pytest.approx(plain, abs=1e-5)
    some[0] = 1
    given = dataclasses.replace(batch, extra_ids=extra, extra_mask=some)
    assert losses(model, given)["itm"].item() != pytest.approx(plain, abs=1e-3)


def test_twins_follow_and_the_queue_fills():
    model, batch = loud(Blip(TINY)).train(), a_batch()
    twin = model.twins.image_proj.weight.clone()
    losses(model, batch)
    expected = twin * 0.995 + model.image_proj.weight * 0.005
    assert torch.allclose(model.twins.image_proj.weight, expected, atol=1e-6)
    assert int(model.twins.pointer) == 4
    assert model.twins.id_queue[:5].tolist() == [0, 1, 2, 3, -100]


def test_heads_answer_in_full_precision_whatever_the_towers_run_in():
    torch.manual_seed(0)
    model, first = loud(Blip(TINY)), torch.randn(3, 32).bfloat16()
    projected, judged = (first.float() @ head.weight.T + head.bias for head in (model.text_proj, model.match_head))
    with torch.autocast("cpu", torch.bfloat16):
        vec, logits = model.text_vec_of(first), model.match_logits_of(first)
    torch.testing.assert_close(vec, projected / projected.norm(dim=1, keepdim=True))
    torch.testing.assert_close(logits, judged)


def test_speaking_step_by_step_is_speaking_at_once():
    model, batch = loud(Blip(TINY)), a_batch(2)
    kv = model.text.project(model.vit(batch.pixels))
    ids = batch.ids[:, :5].clamp(min=7)
    whole = model.text.speak(ids, torch.ones_like(ids), kv)
    past = GrowingPast(2, ids.device)
    parts = [model.text.speak_on(part, kv, past) for part in (ids[:, :2], *ids[:, 2:].split(1, dim=1))]
    assert torch.allclose(whole, torch.cat(parts, dim=1), atol=1e-4)


def test_specialists_take_their_part_and_refuse_what_is_missing():
    model = loud(Blip(TINY))
    captioner = respecialised(model, roles=("speak",), queue=0)
    filter_ = respecialised(model, roles=("read", "look"))
    assert torch.equal(captioner.text.layers[0].causal.qkv.weight, model.text.layers[0].causal.qkv.weight)
    assert torch.equal(filter_.twins.id_queue, model.twins.id_queue)
    with pytest.raises(ConfigError, match="cannot become"):
        respecialised(captioner, roles=("read",), queue=0)
    with pytest.raises(ConfigError, match="needs the role read"):
        Blip(dataclasses.replace(TINY, roles=("speak",)))


def test_positions_resize_and_keep_cls():
    table = torch.randn(1, 17, 8)
    grown = resize_positions(table, 37)
    assert grown.shape == (1, 37, 8)
    assert torch.equal(grown[:, 0], table[:, 0])
    assert resize_positions(table, 17) is table


def test_one_batch_is_learned_by_heart():
    torch.manual_seed(0)
    model, batch = Blip(TINY).init_weights().train(), a_batch()
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), 3e-3)
    objective = Objective(smoothing=0.0, momentum=0.9)
    first = None
    for step in range(150):
        uniform = torch.rand(2, 4, generator=torch.Generator().manual_seed(step))
        found = model.losses(batch, objective, 0.0, uniform)
        total = torch.stack(list(found.values())).sum()
        first = first or total.item()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    assert found["itm"].item() < 0.1
    assert found["lm"].item() < 0.2
    assert total.item() < first / 2
