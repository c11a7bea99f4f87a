"""What is said of towers is true: an independent judge reads the sentence and looks at the scene's description."""

import re

import pytest

from capfilt.data.nlvr.towers import tower_statement
from capfilt.data.nlvr.words import Say
from capfilt.data.nlvr.world import Item, Scene, draw_scene
from capfilt.runtime import rng

N = {"one": 1, "1": 1, "two": 2, "2": 2, "three": 3, "3": 3, "four": 4, "4": 4}
NUMBER, COLOUR = r"(one|two|three|four|[1-4])", r"(yellow|black|blue)"
END = r"(top|base|bottom)"


def scene(*towers: str) -> Scene:
    """Towers spelled by the first letters of their colours, k for black, from the base up."""
    names = {"y": "yellow", "k": "black", "b": "blue"}
    boxes = (tuple(Item("square", names[c], 20, 40, 80 - 21 * i) for i, c in enumerate(tower)) for tower in towers)
    return Scene(tuple(boxes), True)


def end_of(tower, end):
    return tower[-1] if end == "top" else tower[0]


JUDGES = {
    rf"there is a tower (?:with|that has|which has|having|containing) a {COLOUR} block at the {END}": lambda f, ts: any(
        end_of(t, f[2]) == f[1] for t in ts
    ),
    rf"there is (?:exactly|only) {NUMBER} tower (?:with|having) exactly {NUMBER} blocks?": lambda f, ts: (
        sum(len(t) == N[f[2]] for t in ts) == N[f[1]]
    ),
    rf"there is at least {NUMBER} {COLOUR} tower": lambda f, ts: any(set(t) == {f[2]} for t in ts),
    rf"there is no {COLOUR} block as the {END} of a tower": lambda f, ts: all(end_of(t, f[2]) != f[1] for t in ts),
    rf"the {END} of the three towers are {COLOUR}": lambda f, ts: all(end_of(t, f[1]) == f[2] for t in ts),
    rf"there is a {COLOUR} block on a {COLOUR} block": lambda f, ts: any(
        t[i] == f[2] and t[i + 1] == f[1] for t in ts for i in range(len(t) - 1)
    ),
    rf"there are exactly {NUMBER} {COLOUR} blocks": lambda f, ts: sum(t.count(f[2]) for t in ts) == N[f[1]],
    r"all towers have different heights": lambda f, ts: len({len(t) for t in ts}) == 3,
    rf"all (?:three |3 |the three )?towers have only {COLOUR} blocks": lambda f, ts: all(set(t) == {f[1]} for t in ts),
}


def test_an_independent_judge_agrees():
    draw = rng("judge of towers")
    say, judged, verdicts = Say(draw), {}, set()
    scenes = [s for s in (draw_scene(draw) for _ in range(60)) if s.towers]
    for _ in range(20_000):
        statement = tower_statement(say)
        for pattern, judge in JUDGES.items():
            found = re.fullmatch(pattern, statement.text)
            if found and judged.get(pattern, 0) < 8:
                judged[pattern] = judged.get(pattern, 0) + 1
                for one in scenes:
                    towers = [[item.colour for item in box] for box in one.boxes]
                    truth = statement.truth(one)
                    assert truth is None or truth == judge(found, towers), (statement.text, towers)
                    verdicts.add((pattern, truth))
    assert len(judged) >= 7, judged
    assert {truth for _, truth in verdicts} >= {True, False}
    assert all({(p, True), (p, False)} & verdicts for p in judged)


@pytest.mark.parametrize("about", ["with", "as the", "blocks", "one of the", "tower with exactly", "tallest"])
def test_every_kind_of_sentence_can_be_true_and_false(about):
    draw = rng("kinds")
    say, seen = Say(draw), set()
    scenes = [s for s in (draw_scene(draw) for _ in range(40)) if s.towers]
    for _ in range(3000):
        statement = tower_statement(say)
        if about in statement.text:
            seen |= {statement.truth(s) for s in scenes[:10]}
        if seen >= {True, False}:
            return
    raise AssertionError(f"{about}: {seen}")


def test_what_hangs_on_the_reading_has_no_truth():
    say = Say(rng("readings"))
    two = next(s for s in (tower_statement(say) for _ in range(20_000)) if s.text == "there are two blue blocks")
    assert two.truth(scene("bb", "k", "y")) is True
    assert two.truth(scene("bb", "b", "y")) is None  # three: two at least, not exactly
    assert two.truth(scene("b", "k", "y")) is False
