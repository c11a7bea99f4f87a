"""The models of single tasks: what they share with BLIP, what padding may not change, and that they learn."""

import dataclasses

import pytest
import torch
from torch import nn

from capfilt.errors import ConfigError
from capfilt.models import blip, blip_nlvr, blip_visdial, blip_vqa
from capfilt.pair import Dialogues, Questions, Statements


def loud(model: nn.Module, seed: int = 0) -> nn.Module:
    """Large random weights and biases, so that no bug hides below a tolerance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.25, generator=generator)
    return model.eval()


def rows(count: int, length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask; the second row ends early."""
    ids = torch.randint(7, 60, (count, length), generator=torch.Generator().manual_seed(seed))
    ids[:, 0], mask = 2, torch.ones(count, length, dtype=torch.long)
    mask[1, length // 2 :] = 0
    return ids * mask, mask


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def questions() -> Questions:
    answers, shown = rows(6, 5, 1)
    return Questions(noise(4, 3, 32, 32), *rows(4, 9), answers, shown, torch.rand(6), torch.tensor([0, 0, 1, 2, 3, 3]))


def statements() -> Statements:
    return Statements(noise(2, 4, 3, 32, 32), *rows(4, 9), torch.tensor([0, 1, 1, 0]))


def dialogues() -> Dialogues:
    owner, label = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 0])
    return Dialogues(noise(2, 3, 32, 32), *rows(2, 6, 2), *rows(4, 9), owner, label)


CASES = [
    (blip_vqa.BlipVqa, blip_vqa.PRESETS["tiny"], blip_vqa.Answering(smoothing=0.0), questions),
    (blip_nlvr.BlipNlvr, blip_nlvr.PRESETS["tiny"], blip_nlvr.Reasoning(), statements),
    (blip_visdial.BlipVisdial, blip_visdial.PRESETS["tiny"], blip_visdial.Continuing(), dialogues),
]


@pytest.mark.parametrize(("kind", "config", "objective", "batch"), CASES, ids=lambda x: getattr(x, "__name__", ""))
def test_every_parameter_learns_and_one_batch_is_learned_by_heart(kind, config, objective, batch):
    torch.manual_seed(0)
    model, data = kind(config).init_weights().train(), batch()
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(80):
        (loss,) = model.losses(data, objective, 0.0, None).values()
        loss.backward()
        if not step:
            assert all(p.grad is not None for p in model.parameters())
        optimiser.step()
        optimiser.zero_grad()
    assert loss.item() < (1.0 if kind is blip_vqa.BlipVqa else 0.05)  # six answers of several words; one verdict


def test_a_twin_that_looks_twice_at_one_image_is_the_single_one():
    config = blip_nlvr.PRESETS["tiny"]
    single = loud(blip.Blip(dataclasses.replace(blip.PRESETS["tiny"], roles=("look",), queue=0)))
    twin = blip_nlvr.BlipNlvr(config).eval()
    own = single.state_dict()
    filled = {}
    for name, tensor in twin.state_dict().items():
        source = name.replace(".cross0.", ".cross.").replace(".cross1.", ".cross.")
        filled[name] = own.get(source, tensor)
        if name.endswith("merge.weight"):
            filled[name] = torch.cat((torch.eye(32), torch.eye(32)), dim=1) / 2  # the mean, as a learned merge
        if name.endswith("merge.bias"):
            filled[name] = torch.zeros(32)
    twin.load_state_dict(filled)
    ids, mask = rows(3, 8)
    pixels = noise(3, 3, 32, 32)
    with torch.inference_mode():
        want = single.text.look(ids, mask, single.text.project(single.vit(pixels)))
        got = twin.text.look_at_pair(ids, mask, twin.look(pixels, pixels))
        first = twin.text.look_at_pair(ids, mask, twin.look(pixels, pixels), first_only=True)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(first[:, 0], got[:, 0], atol=2e-5, rtol=1e-4)


def test_the_order_of_two_images_counts():
    model = loud(blip_nlvr.BlipNlvr(blip_nlvr.PRESETS["tiny"]))
    batch = statements()
    with torch.inference_mode():
        straight = model.logits(batch.ids, batch.mask, model.look(*batch.pixels))
        crossed = model.logits(batch.ids, batch.mask, model.look(*batch.pixels.flip(0)))
    assert (straight - crossed).abs().max() > 1e-3


def test_answers_do_not_hear_a_questions_padding():
    model = loud(blip_vqa.BlipVqa(blip_vqa.PRESETS["tiny"]))
    batch, objective = questions(), blip_vqa.Answering()
    wider = dataclasses.replace(
        batch,
        **{name: torch.nn.functional.pad(getattr(batch, name), (0, 3)) for name in ("ids", "mask")},
        **{name: torch.nn.functional.pad(getattr(batch, name), (0, 2)) for name in ("answer_ids", "answer_mask")},
    )
    with torch.inference_mode():
        want, got = (model.losses(b, objective)["vqa"] for b in (batch, wider))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_answers_count_by_their_weights_a_question():
    model = loud(blip_vqa.BlipVqa(blip_vqa.PRESETS["tiny"]))
    batch, objective = questions(), blip_vqa.Answering()
    with torch.inference_mode():
        each = [model.losses(dataclasses.replace(batch, weight=one), objective)["vqa"] for one in torch.eye(6).unbind()]
        whole = model.losses(batch, objective)["vqa"]
    torch.testing.assert_close(whole, (torch.stack(each) * batch.weight).sum(), rtol=1e-5, atol=1e-5)


def test_dialogues_do_not_see_a_captions_padding():
    model = loud(blip_visdial.BlipVisdial(blip_visdial.PRESETS["tiny"]))
    batch, objective = dialogues(), blip_visdial.Continuing()
    padded = {name: torch.nn.functional.pad(getattr(batch, name), (0, 4)) for name in ("caption_ids", "caption_mask")}
    with torch.inference_mode():
        want, got = (model.losses(b, objective)["visdial"] for b in (batch, dataclasses.replace(batch, **padded)))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_a_dialogue_needs_image_and_text_of_one_width():
    config = blip_visdial.PRESETS["tiny"]
    with pytest.raises(ConfigError, match=r"vit.width=64, text.width=32"):
        blip_visdial.BlipVisdial(dataclasses.replace(config, vit=dataclasses.replace(config.vit, width=64)))


def test_the_sizes_are_the_papers():
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in model.parameters())
            for model in (
                blip_vqa.BlipVqa(blip_vqa.PRESETS["base"]),
                blip_vqa.BlipVqa(blip_vqa.PRESETS["large"]),
                blip_nlvr.BlipNlvr(blip_nlvr.PRESETS["base"]),
            )
        ]
    assert counts == [361_478_972, 583_880_764, 259_372_034]
