"""Texts that begin when they like share columns of keys and see their own past alone."""

import torch

from capfilt.blocks.attention import Past, SelfAttention, mask_bias
from capfilt.blocks.past import FixedPast, GrowingPast


def test_slots_that_begin_at_any_time_see_their_own_past_alone():
    block, span, slots = SelfAttention(8, 2), 5, 3
    texts = torch.randn(7, span, 8)
    whole = block(texts, mask_bias(torch.ones(7, span, dtype=torch.long), True, texts.dtype))
    past, at, who, coming = FixedPast(slots, span, texts.device), [3, 0, 4], [0, 1, 2], 3
    past.said = torch.tensor(at)  # two slots are in the middle of texts that nobody looks at
    begun = {1}
    checked = 0
    while coming < 7:
        past.open(slots, 1)
        assert past.length.tolist() == at
        answer = block.step(torch.stack([texts[i, p] for i, p in zip(who, at, strict=True)])[:, None], past, 0)
        past.close()
        for slot in begun:
            assert torch.allclose(answer[slot, 0], whole[who[slot], at[slot]], atol=1e-6)
            checked += 1
        at = [p + 1 for p in at]
        over = [slot for slot in range(slots) if at[slot] == span]
        for slot in over:
            at[slot], who[slot], coming = 0, coming, coming + 1
        begun |= set(over)
        past.begin(torch.tensor(over, dtype=torch.long))
    assert checked > 12


def test_what_is_kept_goes_on_in_its_order():
    block, x = SelfAttention(8, 2), torch.randn(3, 4, 8)
    whole = block(x, mask_bias(torch.ones(3, 4, dtype=torch.long), True, x.dtype))
    for past in (FixedPast(3, 4, x.device), GrowingPast(3, x.device)):
        assert isinstance(past, Past)
        rows = torch.arange(3)
        for i in range(4):
            past.open(len(rows), 1)
            assert torch.allclose(block.step(x[rows, i : i + 1], past, 0), whole[rows, i : i + 1], atol=1e-6)
            past.close()
            if i == 1:
                rows = torch.tensor([2, 0])
                past.keep(rows)


def test_a_slot_that_nobody_begins_anew_stays_at_its_last_position():
    past = FixedPast(1, 3, torch.device("cpu"))
    for _ in range(6):
        past.open(1, 1)
        past.close()
    assert past.length.tolist() == [2] and past.bias is not None and not past.bias.any()
