"""What is said of boxes is true: an independent judge reads the sentence and looks at the scene's description."""

import re

import pytest

from capfilt.data.nlvr.boxes import box_statement
from capfilt.data.nlvr.words import Say
from capfilt.data.nlvr.world import draw_scene
from capfilt.runtime import rng

N = {
    word: n
    for n, words in enumerate(("one 1", "two 2", "three 3", "four 4", "five 5", "six 6"), 1)
    for word in words.split()
}
NUMBER, COLOUR = r"(one|two|three|four|five|six|[1-6])", r"(yellow|black|blue)"
SHAPE = r"(square|circle|triangle|item|object)s?"
WALL = r"(?:closely )?touching (?:the|a|an) (?:wall|edge|side)"
FLOOR = r"(?:closely )?touching (?:the|a) (?:base|bottom|bottom edge|bottom base)(?: of (?:a|the) box)?"


def are(box, colour, noun):
    return [i for i in box if i.colour == colour and noun in (i.shape, "item", "object")]


def at_wall(item):
    low, high = min(item.x, item.y), max(item.x, item.y) + item.side
    return low <= 1 or high >= 99


def on_floor(item):
    return item.y + item.side >= 99


JUDGES = {
    rf"there is a {COLOUR} {SHAPE} {WALL}": lambda f, bs: any(at_wall(i) for b in bs for i in are(b, f[1], f[2])),
    rf"there is no {COLOUR} {SHAPE} {FLOOR}": lambda f, bs: (
        not any(on_floor(i) for b in bs for i in are(b, f[1], f[2]))
    ),
    rf"there (?:is|are) exactly {NUMBER} {COLOUR} {SHAPE} {WALL}": lambda f, bs: (
        sum(at_wall(i) for b in bs for i in are(b, f[2], f[3])) == N[f[1]]
    ),
    rf"there is a (?:grey )?(?:box|square) with exactly {NUMBER} (?:item|object|thing)s?": lambda f, bs: any(
        len(b) == N[f[1]] for b in bs
    ),
    rf"there is a (?:grey )?(?:box|square) with only {COLOUR} (?:items|objects)": lambda f, bs: any(
        {i.colour for i in b} == {f[1]} for b in bs
    ),
    rf"(?:each|every) (?:grey )?(?:box|square) (?:has|have|contains|contain) at least {NUMBER} {COLOUR} {SHAPE}": (
        lambda f, bs: all(len(are(b, f[2], f[3])) >= N[f[1]] for b in bs)
    ),
    rf"there is only one color {WALL}": lambda f, bs: len({i.colour for b in bs for i in b if at_wall(i)}) == 1,
    rf"none of the {COLOUR} {SHAPE} are {WALL}": lambda f, bs: (
        not any(at_wall(i) for b in bs for i in are(b, f[1], f[2]))
    ),
    rf"there is a (?:grey )?(?:box|square) with a {COLOUR} item on top": lambda f, bs: any(
        min(b, key=lambda i: i.y + i.side).colour == f[1] for b in bs
    ),
}


def test_an_independent_judge_agrees():
    draw = rng("judge of boxes")
    say, judged, verdicts = Say(draw), {}, set()
    scenes = [draw_scene(draw) for _ in range(60)]
    for n in range(30_000):
        towers = n % 4 == 0
        statement = box_statement(say, towers)
        for pattern, judge in JUDGES.items():
            found = re.fullmatch(pattern, statement.text)
            if found and judged.get(pattern, 0) < 8:
                judged[pattern] = judged.get(pattern, 0) + 1
                for scene in (s for s in scenes if s.towers == towers):
                    if "on top" in pattern and any(len({i.y + i.side for i in b}) < len(b) for b in scene.boxes):
                        continue  # two end on one line: which of them is on top is not defined
                    truth = statement.truth(scene)
                    assert truth is None or truth == judge(found, scene.boxes), (statement.text, scene)
                    verdicts.add((pattern, truth))
    assert len(judged) >= 7, judged
    assert all({(pattern, True), (pattern, False)} & verdicts for pattern in judged)
    assert {truth for _, truth in verdicts} >= {True, False}


@pytest.mark.parametrize("about", ["of which", "on top", "touching", "each", "every", "of the same color", "corner"])
def test_every_kind_of_sentence_can_be_true_and_false(about):
    draw = rng("kinds")
    say, seen = Say(draw), set()
    scenes = [s for s in (draw_scene(draw) for _ in range(60)) if not s.towers]
    for _ in range(3000):
        statement = box_statement(say, False)
        if about in statement.text:
            seen |= {statement.truth(s) for s in scenes[:15]}
        if seen >= {True, False}:
            return
    raise AssertionError(f"{about}: {seen}")
