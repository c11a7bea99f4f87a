"""How well a model answers, judges statements and goes on with dialogues, on annotated pictures.

Each function takes a test set's records and the album of their images. Records whose truth is kept back or whose image
could not be read are left out; `rows` says how many were measured.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from capfilt.data.annotations import Asked, Dialog, Id, Stated
from capfilt.data.pictures import Album
from capfilt.data.task_batches import said_before
from capfilt.errors import DataError
from capfilt.evaluate.answers import score_answers
from capfilt.evaluate.dialogs import ndcg, score_dialogs
from capfilt.evaluate.model import at_px
from capfilt.evaluate.statements import score_statements
from capfilt.models.blip_nlvr import BlipNlvr
from capfilt.models.blip_visdial import BlipVisdial
from capfilt.models.blip_vqa import BlipVqa
from capfilt.predict.answerer import Answerer, K
from capfilt.predict.reasoner import Dialogist, Reasoner
from capfilt.progress import Progress

AT_ONCE = 512  # images in memory

T = TypeVar("T")


def measure_answers(
    answerer: Answerer, asked: Sequence[Asked], album: Album, candidates: Sequence[str] | None = None, k: int = K
) -> dict[str, float]:
    """VQA accuracy (`overall`, and by answer type where that is known), and `rows`.

    candidates: what answers are chosen from, `k` of them judged in full; generated if None.
    """
    known = [one for one in asked if one.image in album.place and one.raw_answers]
    measured = [replace(one, question_id=i) for i, one in enumerate(known)]  # files may number theirs alike
    by_image: dict[str, list[Asked]] = {}
    for one in measured:
        by_image.setdefault(one.image, []).append(one)
    said: dict[Id, str] = {}
    for images in _parts("answering", sorted(by_image, key=album.place.__getitem__)):
        questions = [[one.question for one in by_image[image]] for image in images]
        answers = answerer.ask(_pixels(answerer.model, album, images), questions, candidates, k)
        for image, of_image in zip(images, answers, strict=True):
            for one, answer in zip(by_image[image], of_image, strict=True):
                said[one.question_id] = answer.text
    return {**score_answers(measured, said).summary(), "rows": len(measured)}


def measure_statements(reasoner: Reasoner, stated: Sequence[Stated], album: Album) -> dict[str, float]:
    """`accuracy` and `consistency`, and `rows`. Where a statement is about one image, that is shown twice."""
    pairs = {i: (s.first, s.first if s.second is None else s.second) for i, s in enumerate(stated)}
    good = [i for i, pair in pairs.items() if stated[i].label is not None and all(x in album.place for x in pair)]
    judged = [np.zeros(0)]
    for part in _parts("judging", good):
        first, second = (_pixels(reasoner.model, album, [pairs[i][side] for i in part]) for side in (0, 1))
        judged.append(reasoner.judge(first, second, [stated[i].sentence for i in part]))
    found = score_statements([stated[i] for i in good], np.concatenate(judged) > 0.5)
    return {**found.summary(), "rows": len(good)}


def measure_dialogs(dialogist: Dialogist, dialogs: Sequence[Dialog], album: Album) -> dict[str, float]:
    """`mrr`, `r1`, `r5`, `r10` and `mean_rank` of the answer among its options, `ndcg` where known, and `rows`."""
    shown = [d for d in dialogs if d.image in album.place]
    turns = [[turn for turn, r in enumerate(d.rounds) if r.options] for d in shown]
    scores: list[np.ndarray] = []
    for part in _parts("ranking", list(zip(shown, turns, strict=True)), AT_ONCE // 16):  # each brings a thousand texts
        pixels = _pixels(dialogist.model, album, [d.image for d, _ in part])
        talks = [[[*said_before(d, t), option] for t in ts for option in d.rounds[t].options] for d, ts in part]
        found = dialogist.rank(pixels, [d.caption for d, _ in part], talks)
        for (d, ts), of_dialog in zip(part, found, strict=True):
            ends = np.cumsum([len(d.rounds[t].options) for t in ts])
            scores += np.split(of_dialog, ends)[: len(ts)]
    rounds = [d.rounds[t] for d, ts in zip(shown, turns, strict=True) for t in ts]
    asked = [i for i, r in enumerate(rounds) if r.right is not None]
    if not asked:
        raise DataError("no round whose answer is among its options and whose image could be read")
    options = max(map(len, scores))
    every = _filled(scores, options, -np.inf)
    summary = score_dialogs(every[asked], np.array([rounds[i].right for i in asked])).summary()
    if dense := [i for i, r in enumerate(rounds) if r.relevance is not None]:
        relevance = _filled([np.array(rounds[i].relevance) for i in dense], options, 0.0)
        summary["ndcg"] = float(ndcg(every[dense], relevance).mean())
    return {**summary, "rows": len(asked)}


def _filled(rows: Sequence[np.ndarray], length: int, fill: float) -> np.ndarray:
    """Rows of one length, filled up where a round has fewer options than another."""
    return np.stack([np.pad(row, (0, length - len(row)), constant_values=fill) for row in rows])


def _parts(stage: str, rows: Sequence[T], size: int = AT_ONCE) -> Iterator[Sequence[T]]:
    with Progress(stage, len(rows)) as bar:
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
            bar.update(min(len(rows), start + size))


def _pixels(model: BlipVqa | BlipNlvr | BlipVisdial, album: Album, images: Sequence[str]) -> np.ndarray:
    return at_px(np.asarray(album.pictures[np.array([album.place[image] for image in images])]), model.config.vit.px)
