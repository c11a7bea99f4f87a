"""A talk as ids: parts in their order, the oldest gone first, the end always kept."""

from capfilt.inputs.dialogues import dialogue_ids
from capfilt.inputs.tokenizer import TextTokenizer

PARTS = ("is it red", "yes", "is it a box", "no")


def test_parts_end_with_sep_and_the_oldest_go_first():
    tokenizer = TextTokenizer.train([" ".join(PARTS)], 80)
    bodies = [row[1:].tolist() for row in tokenizer.encode(PARTS)]
    whole = dialogue_ids(tokenizer, PARTS, 64)
    assert whole.tolist() == [tokenizer.cls_id, *(i for body in bodies for i in body)]
    assert dialogue_ids(tokenizer, PARTS, len(whole)).tolist() == whole.tolist()
    cut = dialogue_ids(tokenizer, PARTS, len(whole) - 1).tolist()
    assert cut == [tokenizer.cls_id, *(i for body in bodies[1:] for i in body)]
    last = dialogue_ids(tokenizer, PARTS[2:3], 4).tolist()
    assert len(last) == 4 and (last[0], last[-1]) == (tokenizer.cls_id, tokenizer.sep_id)
