"""How well a model captions, finds, answers, judges statements and goes on with dialogues, on annotated pictures.

Each function takes a test set's records and the album of their images or clips. Records whose image could not be read
are left out; of those whose truth is kept back there are predictions, but no numbers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from capfilt.data.annotations import Asked, Captioned, Dialog, Filmed, Id, Stated
from capfilt.data.pictures import Album
from capfilt.data.table import Chosen
from capfilt.data.task_batches import said_before
from capfilt.errors import DataError
from capfilt.evaluate.answers import score_answers
from capfilt.evaluate.captions import extra_scores, score_captions
from capfilt.evaluate.dialogs import ndcg, score_dialogs
from capfilt.evaluate.model import at_px, cosines, match_logits, retrieve, weight, write_captions
from capfilt.evaluate.retrieval import candidates, rerank
from capfilt.evaluate.statements import score_statements
from capfilt.evaluate.videos import score_videos
from capfilt.models.blip_nlvr import BlipNlvr
from capfilt.models.blip_visdial import BlipVisdial
from capfilt.models.blip_vqa import BlipVqa
from capfilt.predict.answerer import Answerer, K
from capfilt.predict.decode import BEAM, Decoding
from capfilt.predict.predictor import Predictor
from capfilt.predict.reasoner import Dialogist, Reasoner
from capfilt.progress import Progress
from capfilt.runtime import derive

AT_ONCE = 512  # images in memory

T = TypeVar("T")
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """What a model said, and what that comes to.

    numbers:     name → number, where the truth is known. `rows`: how many were scored; `kept_back`: how many were not
                 for want of truth, where there are any.
    predictions: one row each in the form in which the task's server or script takes them.
    """

    numbers: Numbers
    predictions: list[dict[str, Any]] = field(repr=False)


def measure_captions(
    predictor: Predictor,
    captioned: Sequence[Captioned],
    album: Album,
    decoding: Decoding = BEAM,
    extras: Sequence[str] = (),
) -> Measured:
    """BLEU, ROUGE-L and CIDEr; under the name of each of NoCaps' domains, where there are any, those of its images.

    A domain's CIDEr takes its document frequencies from all images, so that the whole is the mean over them.
    extras: `meteor` and `spice`. Predictions: {image_id, caption}.
    """
    rows = _shown(captioned, lambda one: (one.image,), album)
    said = write_captions(predictor, _pictures(album, [one.image for one in rows]), decoding)
    known = [(one, text) for one, text in zip(rows, said, strict=True) if one.captions]
    corpus = [one.captions for one, _ in known]

    def scores(domain: str = "") -> Numbers:
        part = [(text, one.captions) for one, text in known if domain in ("", one.domain)]
        texts, references = [text for text, _ in part], [human for _, human in part]
        found = score_captions(texts, references, corpus=corpus).summary()
        more = extra_scores(texts, references, extras) if extras else None
        return {**found, **{name: whole for name, (whole, _) in (more or {}).items()}, "rows": len(part)}

    numbers = scores() if known else {"rows": 0}
    numbers |= {domain: scores(domain) for domain in sorted({one.domain for one, _ in known} - {""})}
    predictions = [{"image_id": one.image_id, "caption": text} for one, text in zip(rows, said, strict=True)]
    return Measured(numbers | _kept_back(len(rows) - len(known)), predictions)


def measure_retrieval(
    predictor: Predictor, captioned: Sequence[Captioned], album: Album, k: int = 256, itc: float | None = 1.0
) -> Measured:
    """Recall both ways, `tr1` ... `ir10` with the k best re-ranked, and `itc_tr1` ... by cosine alone.

    k, itc: as `evaluate.model.retrieve`.

    Predictions: {image_id, ranks of its best text}, then {image_id, caption, ranks of its image}.
    """
    rows = [one for one in _shown(captioned, lambda one: (one.image,), album) if one.captions]
    if len(rows) < 2:
        raise DataError(f"{len(rows)} images with captions: comparing needs at least 2")
    pictures, texts_of = _pictures(album, [one.image for one in rows]), [one.captions for one in rows]
    found = retrieve(predictor, pictures, texts_of, k, itc)
    numbers = {before + name: value for before, ways in found.items() for name, value in ways.summary().items()}
    texts = [(one.image_id, text) for one in rows for text in one.captions]

    def ranks(way: str, i: int) -> dict[str, int]:
        return {f"{before}rank": int(getattr(ways, way)[i]) for before, ways in found.items()}

    of_images = [{"image_id": one.image_id, **ranks("tr_ranks", i)} for i, one in enumerate(rows)]
    of_texts = [{"image_id": of, "caption": text, **ranks("ir_ranks", i)} for i, (of, text) in enumerate(texts)]
    return Measured({**numbers, "rows": len(rows)}, [*of_images, *of_texts])


def measure_videos(
    predictor: Predictor, filmed: Sequence[Filmed], album: Album, k: int = 128, itc: float | None = 1.0
) -> Measured:
    """Clips found by a text: `r1`, `r5`, `r10`, `median_rank` with its k best re-ranked, `itc_r1` ... by cosine alone.

    album: of clips. Predictions: {video_id, caption, ranks of its clip}. `rows` are texts.
    """
    rows = [one for one in _shown(filmed, lambda one: (one.video,), album) if one.captions]
    clips, texts = _pictures(album, [one.video for one in rows]), [t for one in rows for t in one.captions]
    owner = np.repeat(np.arange(len(rows)), [len(one.captions) for one in rows])
    sim = cosines(predictor, clips, texts)
    found = {"itc_": score_videos(sim.T, owner)}
    if k and "look" in predictor.model.config.roles:
        _, asked = candidates(sim, k)
        logits = match_logits(predictor, clips, texts, asked)
        _, for_text = rerank(sim, k, lambda i, j: logits[i, j], weight(predictor, itc))
        found[""] = score_videos(for_text, owner)
    numbers = {before + name: value for before, way in found.items() for name, value in way.summary().items()}
    predictions = [
        {"video_id": rows[clip].video_id, "caption": text, **{f"{b}rank": int(w.ranks[i]) for b, w in found.items()}}
        for i, (clip, text) in enumerate(zip(owner.tolist(), texts, strict=True))
    ]
    return Measured({**numbers, "rows": len(texts), "clips": len(rows)}, predictions)


def measure_answers(
    answerer: Answerer, asked: Sequence[Asked], album: Album, candidates: Sequence[str] | None = None, k: int = K
) -> Measured:
    """VQA accuracy (`overall`, and by answer type where that is known). Predictions: {question_id, answer}.

    candidates: what answers are chosen from, `k` of them judged in full; generated if None.
    """
    rows = _shown(asked, lambda one: (one.image,), album)
    by_image: dict[str, list[int]] = {}
    for i, one in enumerate(rows):
        by_image.setdefault(one.image, []).append(i)
    said = [""] * len(rows)
    for images in _parts("answering", sorted(by_image, key=album.place.__getitem__), AT_ONCE // _frames(album)):
        questions = [[rows[i].question for i in by_image[image]] for image in images]
        answers = answerer.ask(_pixels(answerer.model, album, images), questions, candidates, k)
        for image, of_image in zip(images, answers, strict=True):
            for i, answer in zip(by_image[image], of_image, strict=True):
                said[i] = answer.text
    # By our own numbers, for files may number theirs alike.
    known: dict[Id, str] = {i: text for i, text in enumerate(said) if rows[i].raw_answers}
    scored = [replace(one, question_id=i) for i, one in enumerate(rows) if one.raw_answers]
    numbers = score_answers(scored, known).summary() if known else {}
    predictions = [{"question_id": one.question_id, "answer": text} for one, text in zip(rows, said, strict=True)]
    return Measured({**numbers, "rows": len(known)} | _kept_back(len(rows) - len(known)), predictions)


def measure_statements(reasoner: Reasoner, stated: Sequence[Stated], album: Album) -> Measured:
    """`accuracy` and `consistency`. Where a statement is about one image, that is shown twice.

    Predictions: {id, verdict}, True or False.
    """
    rows = _shown(stated, _pair, album)
    judged = []
    for part in _parts("judging", rows):
        first, second = (_pixels(reasoner.model, album, [_pair(one)[side] for one in part]) for side in (0, 1))
        seeds = [derive(0, one.id) for one in part]  # of `faithful.random_swap` alone
        judged.append(reasoner.judge(first, second, [one.sentence for one in part], seeds))
    verdicts = np.concatenate(judged) > 0.5
    known = [i for i, one in enumerate(rows) if one.label is not None]
    numbers = score_statements([rows[i] for i in known], verdicts[known]).summary() if known else {}
    predictions = [{"id": one.id, "verdict": v} for one, v in zip(rows, verdicts.tolist(), strict=True)]
    return Measured({**numbers, "rows": len(known)} | _kept_back(len(rows) - len(known)), predictions)


def measure_dialogs(dialogist: Dialogist, dialogs: Sequence[Dialog], album: Album) -> Measured:
    """`mrr`, `r1`, `r5`, `r10` and `mean_rank` of the answer among its options, `ndcg` where known.

    Predictions: {image_id, round_id, ranks}; rounds count from 1, ranks stand in the order of the options.
    """
    rows = _shown(dialogs, lambda one: (one.image,), album)
    turns = [[turn for turn, r in enumerate(d.rounds) if r.options] for d in rows]
    asked = [(d, t) for d, ts in zip(rows, turns, strict=True) for t in ts]
    if not asked:
        raise DataError(f"none of {len(rows)} dialogs has options to rank")
    scores: list[np.ndarray] = []
    for part in _parts("ranking", list(zip(rows, turns, strict=True)), AT_ONCE // 16):  # each brings a thousand texts
        pixels = _pixels(dialogist.model, album, [d.image for d, _ in part])
        talks = [[[*said_before(d, t), option] for t in ts for option in d.rounds[t].options] for d, ts in part]
        found = dialogist.rank(pixels, [d.caption for d, _ in part], talks)
        for (d, ts), of_dialog in zip(part, found, strict=True):
            ends = np.cumsum([len(d.rounds[t].options) for t in ts])
            scores += np.split(of_dialog, ends)[: len(ts)]
    rounds, every = [d.rounds[t] for d, t in asked], _filled(scores, -np.inf)
    known = [i for i, r in enumerate(rounds) if r.right is not None]
    numbers: Numbers = {}
    if known:
        numbers = score_dialogs(every[known], np.array([rounds[i].right for i in known])).summary()
    if dense := [i for i, r in enumerate(rounds) if r.relevance is not None]:
        relevance = _filled([np.array(rounds[i].relevance) for i in dense], 0.0, every.shape[1])
        numbers["ndcg"] = float(ndcg(every[dense], relevance).mean())
    predictions = [
        {"image_id": d.image_id, "round_id": t + 1, "ranks": _ranks(of_round)}
        for (d, t), of_round in zip(asked, scores, strict=True)
    ]
    return Measured({**numbers, "rows": len(known)} | _kept_back(len(asked) - len(known)), predictions)


def _kept_back(count: int) -> Numbers:
    return {"kept_back": count} if count else {}


def _ranks(scores: np.ndarray) -> list[int]:
    """Of each option, from 1."""
    ranks = np.empty(len(scores), int)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks.tolist()


def _filled(rows: Sequence[np.ndarray], fill: float, length: int = 0) -> np.ndarray:
    """Rows of one length, filled up where a round has fewer options than another."""
    length = length or max(map(len, rows))
    return np.stack([np.pad(row, (0, length - len(row)), constant_values=fill) for row in rows])


def _parts(stage: str, rows: Sequence[T], size: int = AT_ONCE) -> Iterator[Sequence[T]]:
    with Progress(stage, len(rows)) as bar:
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
            bar.update(min(len(rows), start + size))


def _pair(stated: Stated) -> tuple[str, str]:
    return stated.first, stated.first if stated.second is None else stated.second


def _shown(rows: Sequence[T], images: Callable[[T], Iterable[str]], album: Album) -> list[T]:
    """The rows whose images could all be read. Raises DataError if there is none."""
    good = [row for row in rows if all(image in album.place for image in images(row))]
    if not good:
        raise DataError(f"none of {len(rows)} rows has all of its images: {len(album.failed)} of them cannot be read")
    return good


def _pictures(album: Album, names: Sequence[str]) -> Chosen:
    return Chosen(album.pictures, np.array([album.place[name] for name in names], np.int64))


def _pixels(model: BlipVqa | BlipNlvr | BlipVisdial, album: Album, names: Sequence[str]) -> np.ndarray:
    return at_px(np.asarray(_pictures(album, names)), model.config.vit.px)


def _frames(album: Album) -> int:
    first = album.pictures[:1]
    return first.shape[1] if first.ndim == 5 else 1
