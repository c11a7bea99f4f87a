"""The words of a report: numbers as people read them, what each measure means, and sentences made from the numbers."""

import unicodedata

from capfilt.report.record import Card, Counts, Filter, Metric, Report, Texts, Unit

# name → (label, what it means to someone who has never seen it)
METRIC_WORDS = {
    "tr1": ("Text retrieval, TR@1", "given an image, how often the best-matching text in the test set is a right one"),
    "ir1": (
        "Image retrieval, IR@1",
        "given a text, how often the best-matching image in the test set is the right one",
    ),
    "cider": ("Caption quality, CIDEr", "how much the model's captions resemble those people wrote; higher is better"),
    "truth": ("Caption truth", "share of what the model's captions state that is true of the image"),
    "coverage": ("Caption coverage", "share of what the image shows that the model's captions mention"),
}
# row code → sentence, for pairs that never reached the filter or failed a plain rule
REASON_WORDS = {
    "no_text": "the pair came without a text",
    "no_image": "the pair came without an image",
    "missing_file": "the image file is not where the pair says",
    "unreadable": "the image file could not be read",
    "truncated": "the image file ends before the picture does",
    "not_an_image": "the file is not an image",
    "too_large": "the image is larger than allowed",
    "too_small": "the image is smaller than allowed",
    "empty": "the image file is empty",
    "duplicate_key": "an earlier pair has the same key",
    "outside_folder": "the image path leads outside the data folder",
    "bad_row": "the row is not written as its format asks",
}
GLOSSARY = (
    ("Web text", "the text that was found with an image: a title, a file name, sometimes a real description."),
    ("Synthetic text", "the text that the captioner wrote for the same image."),
    ("Captioner", "the part of the first model that writes a text for an image."),
    ("Filter", "the part of the first model that says how well a text fits an image."),
    ("ITM", "image-text matching: the model reads a text while it looks at an image and says how likely they fit."),
    ("ITC", "image-text contrast: a faster, coarser comparison of an image and a text as two vectors."),
    ("Threshold", "the filter's score from which a text stays."),
    ("TR@1", "text retrieval: for how many test images the text ranked first is a right one."),
    ("IR@1", "image retrieval: for how many test texts the image ranked first is the right one."),
    ("CIDEr", "agreement of a written caption with human ones, rare words counting more; 0 is none."),
    ("AUC", "the chance that the filter scores a right text above a wrong one; 0.5 is a coin, 1 is perfect."),
    ("Precision", "of the texts the filter kept, the share that truly fit their image."),
    ("Recall", "of the texts that truly fit, the share the filter kept."),
    ("[low, high]", "the 95 % interval: where the value would fall for most other draws of the test set."),
)
UNKNOWN = "\u2013"


def visible(text: str) -> str:
    """The text with nothing hidden in it: controls and signs that reorder or vanish are spelled out, spaces plain."""
    return text if text.isprintable() else "".join(map(_visible_sign, text))


def _visible_sign(sign: str) -> str:
    code = ord(sign)
    if sign.isprintable() or code in (0x200C, 0x200D) or 0xE0020 <= code <= 0xE007F:  # joiners and flags of emoji
        return sign
    kind = unicodedata.category(sign)
    if sign.isspace() or kind == "Zs":
        return " "
    return f"[U+{code:04X}]" if kind == "Cf" else "\ufffd"


def number(value: float | None, digits: int = 3) -> str:
    """`0.912`, or a dash where unknown."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def amount(value: float | None, unit: Unit | str) -> str:
    """A metric's value: `45.2 %` for shares and percents, `0.912` for points."""
    if value is None:
        return UNKNOWN
    return f"{value:.3f}" if unit == "points" else f"{value * (100 if unit == 'share' else 1):.1f} %"


def gain(metric: Metric) -> str:
    """`+7.1 [+5.2, +9.0]`: percentage points for shares and percents."""
    if metric.gain is None:
        return UNKNOWN
    scale, digits = (1, 3) if metric.unit == "points" else (100 if metric.unit == "share" else 1, 1)
    mean, low, high = (f"{value * scale:+.{digits}f}" for value in metric.gain)
    return f"{mean} [{low}, {high}]"


def percent(part: float, whole: float) -> str:
    """`40.0 %` of a whole; a dash of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else UNKNOWN


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def label(metric: Metric) -> str:
    """The metric's name as readers see it."""
    return metric.label or METRIC_WORDS.get(metric.name, (metric.name, ""))[0]


def explanation(metric: Metric) -> str:
    """What the metric means, in plain words; empty for a name we do not know."""
    return metric.explanation or METRIC_WORDS.get(metric.name, ("", ""))[1]


def verdict(metric: Metric) -> str:
    """`better`, `worse` or `no clear change`, by whether the interval leaves zero out; empty where unknown."""
    if metric.gain is None:
        return ""
    _, low, high = metric.gain
    return "better" if low > 0 else "worse" if high < 0 else "no clear change"


def reason(card: Card, threshold: float | None) -> str:
    """Why this pair ended where it did, as one sentence.

    A sentence given with the card stands; else it is written from the scores; else the code is put into words.
    """
    if " " in card.reason.strip():
        return card.reason.strip()
    parts = [
        f"the {name} text {_against(score, threshold)}"
        for name, score in (("web", card.score_web), ("synthetic", card.score_synthetic))
        if score is not None
    ]
    if parts:
        return "the filter gave " + " and ".join(parts)
    return REASON_WORDS.get(card.reason, card.reason.replace("_", " ")) or "no reason was recorded"


def _against(score: float, threshold: float | None) -> str:
    if threshold is None:
        return f"{score:.2f}"
    sign = "<" if score < threshold else "≥"
    # enough digits that a score just under the threshold does not read as equal to it
    digits = next((d for d in range(2, 7) if (f"{score:.{d}f}" == f"{threshold:.{d}f}") == (score == threshold)), 7)
    return f"{score:.{digits}f} ({sign} {threshold:.2f})"


def summary(report: Report) -> list[tuple[str, str]]:
    """(heading, sentences) in the order things happened, for a reader who knows nothing of the method."""
    found, texts = report.filter or Filter(), report.texts or Texts()
    return [
        ("What went in", _went_in(report.counts, texts)),
        ("What the captioner wrote", _written(texts)),
        ("What the filter threw out", _thrown_out(report.counts, found, texts)),
        ("What it brought", _brought(report)),
    ]


def _went_in(counts: Counts, texts: Texts) -> str:
    words = f"{counts.given:,} images, each with the text it was found with."
    if texts.truth_web is not None:
        words += f" {amount(texts.truth_web, 'share')} of what those texts say is true of their image."
    if texts.human:
        words += f" Besides, {texts.human:,} pairs written by people, to teach the first model what a good text is."
    if counts.failed:
        words += f" {counts.failed:,} could not be read and were set aside, each with its reason."
    return words


def _written(texts: Texts) -> str:
    words = "A first model learned from these noisy pairs. Then its captioner looked at "
    words += f"the images and wrote {texts.synthetic:,} new texts." if texts.synthetic is not None else "the images."
    if texts.synthetic is None:
        words = words.replace("looked at the images.", "wrote a new text for each image it could read.")
    if texts.truth_synthetic is not None:
        words += f" {amount(texts.truth_synthetic, 'share')} of what they say is true."
    return words


def _thrown_out(counts: Counts, found: Filter, texts: Texts) -> str:
    bar = "" if found.threshold is None else f" and threw out those under {found.threshold:.2f}"
    words = f"Its filter scored every text from 0 (does not fit the image) to 1 (fits){bar}. "
    words += (
        f"{counts.kept:,} images ({percent(counts.kept, counts.given)}) kept their web text, "
        f"{counts.replaced:,} ({percent(counts.replaced, counts.given)}) got the synthetic text in its place, "
        f"{counts.dropped:,} ({percent(counts.dropped, counts.given)}) were dropped because neither text fitted."
    )
    if found.precision is not None and found.recall is not None:
        words += (
            f" Of the web texts it let through, {amount(found.precision, 'share')} truly fit;"
            f" of those that fit, it let {amount(found.recall, 'share')} through."
        )
    if texts.truth_cleaned is not None and texts.truth_web is not None:
        moved = "rose" if texts.truth_cleaned > texts.truth_web else "fell"
        words += f" Truth {moved} from {amount(texts.truth_web, 'share')} to {amount(texts.truth_cleaned, 'share')}."
    return words


_SENTENCES = {
    "tr1": "it puts a right text first for {after} of the test images (first model: {before})",
    "ir1": "it puts the right image first for {after} of the test texts (first model: {before})",
    "truth": "{after} of what its captions state is true (first model: {before})",
    "cider": "its captions agree with human ones to {after} CIDEr (first model: {before})",
    "coverage": "its captions mention {after} of what an image shows (first model: {before})",
}


def _brought(report: Report) -> str:
    words = "A second model, made the same way, learned from the cleaned set."
    known = [m for m in map(report.metric, _SENTENCES) if m.noisy is not None and m.bootstrapped is not None]
    for metric in known[:3] + [m for m in known[3:] if verdict(m) == "worse"]:
        sentence = _SENTENCES[metric.name].format(
            after=amount(metric.bootstrapped, metric.unit), before=amount(metric.noisy, metric.unit)
        )
        words += f" {sentence[0].upper()}{sentence[1:]}{_judged(metric)}."
    return words if known else words + " How much better it is was not measured."


def _judged(metric: Metric) -> str:
    found = verdict(metric)
    if found == "no clear change":
        return ", too small a change to tell from chance"
    return f", clearly {found}" if found else ""
