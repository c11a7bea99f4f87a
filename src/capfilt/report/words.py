"""The words of a report: what measures, kinds, models, stages and terms are called and mean; numbers to be read."""

import unicodedata

from capfilt.report.record import Card, Metric, Unit

FIRST, SECOND = "first model", "second model"
# name → (label, short name, what it means to someone who has never seen it)
METRIC_WORDS = {
    "tr1": (
        "Text retrieval, TR@1",
        "TR@1",
        "given an image, how often the best-matching text in the test set is a right one",
    ),
    "ir1": (
        "Image retrieval, IR@1",
        "IR@1",
        "given a text, how often the best-matching image in the test set is the right one",
    ),
    "cider": (
        "Caption quality, CIDEr",
        "CIDEr",
        "how much the model's captions resemble the test set's own; 0 is not at all, higher is better",
    ),
    "truth": ("Caption truth", "truth", "share of what the model's captions state that is true of the image"),
    "coverage": ("Caption coverage", "coverage", "share of what the image shows that the model's captions mention"),
    "tr5": ("Text retrieval, TR@5", "TR@5", "as TR@1, but the right text may be among the first five"),
    "ir5": ("Image retrieval, IR@5", "IR@5", "as IR@1, but the right image may be among the first five"),
    "itc_tr1": ("TR@1 by ITC alone", "TR@1 ITC", "without ITM, which orders the best candidates anew"),
    "itc_ir1": ("IR@1 by ITC alone", "IR@1 ITC", "without ITM, which orders the best candidates anew"),
    "bleu4": (
        "BLEU-4",
        "BLEU-4",
        "share of the captions' runs of up to four words that the test set's own captions have too",
    ),
    "rouge_l": ("ROUGE-L", "ROUGE-L", "longest run of words, gaps allowed, that the test set's own captions have too"),
}
# the code that a failed row's reason begins with → words
REASON_WORDS = {
    "no_text": "the pair came without a text",
    "no_image": "the pair came without an image",
    "missing_file": "the image file is not where the pair says",
    "outside_folder": "the image path leads outside the data folder",
    "not_a_file": "the image path leads to something that is no file",
    "url": "the pair gives a web address in place of an image, and nothing is fetched",
    "opt_out": "the image's server asks that it is not used",
    "unreachable": "the image's address did not answer",
    "no_caption": "there was no text, and none could be written",
    "changed": "the image is no longer the one that was judged",
    "duplicate_key": "an earlier pair has the same key",
    "bad_row": "the row is not written as its format asks",
    "empty": "the image file is empty",
    "not_an_image": "the file is not an image",
    "truncated": "the image file ends before the picture does",
    "unreadable": "the image file is broken",
    "too_large": "the image is larger than allowed",
    "decoder_crash": "the image broke the program that unpacks it",
    "decode_timeout": "the image took too long to unpack",
}
NOTE_WORDS = {  # what was used all the same
    "animated": "with an animated image, of which the first frame is used",
    "pages": "with an image of several pages, of which the first is used",
    "odd_aspect": "with a very long or very wide image",
    "too_small": "with a very small image",
    "not_utf8": "with a text that is not UTF-8",
    "text_truncated": "with a text so long that it was cut",
    "control_stripped": "with control characters in the text, which were taken out",
    "bidi_stripped": "with signs in the text that turn the direction of writing, which were taken out",
}
# kind of web text → (name, what it is)
KIND_WORDS = {
    "clean": ("clean", "a true description"),
    "padded": ("padded", "a true description inside the words of a shop or a photo site"),
    "swapped": ("swapped", "the description of another image"),
    "attribute": ("one wrong word", "a description with one detail changed so that it no longer holds"),
    "junk": ("junk", "no description: a file name, a link, a date, an advertisement"),
}
MODEL_WORDS = {
    "noisy": FIRST,
    "bootstrapped": SECOND,
    "filter": "filter only",
    "captioner": "captioner only",
    "human": "human pairs only",
    "share": "same human share",
    "repeated": "noisy, repeated",
}
LOSS_WORDS = {"itc": "ITC, comparing", "itm": "ITM, matching", "lm": "LM, writing"}
# stage → what was done
STAGE_WORDS = {
    "data": "getting the pairs",
    "cleaners/captioner": "tuning the captioner",
    "cleaners/filter": "tuning the filter",
    "clean/captions": "writing synthetic texts",
    "clean/synthetic": "scoring synthetic texts",
    "clean/web": "scoring web texts",
}
GLOSSARY = (
    ("Synthetic text", "the text that the captioner wrote for the same image."),
    ("First model", "trained on the human pairs and all web pairs; `noisy` in the files of the run."),
    ("Captioner", "a copy of the first model, trained further, that writes a text for an image."),
    ("Filter", "a copy of the first model, trained further, that says how well a text fits an image."),
    ("Cleaned set", "the web images, each with those of its two texts that the filter let through."),
    ("Second model", "trained from nothing, on human pairs and cleaned set; `bootstrapped` in the files of the run."),
    ("Bar", "the filter's score from which a text stays."),
    ("ITC", "image-text contrast: a fast, coarse comparison of an image and a text as two vectors."),
    ("ITM", "image-text matching: the model reads a text while it looks at an image and says how likely they fit."),
    ("LM", "language modelling: the model looks at an image and writes a text for it, word by word."),
    ("Loss", "how wrong a model still is at what it is taught (ITC, ITM or LM); training pushes it down."),
    ("TR@1", "text retrieval: for how many test images the text ranked first is a right one."),
    ("IR@1", "image retrieval: for how many test texts the image ranked first is the right one."),
    ("CIDEr", "agreement of a written caption with the test set's own, rare words counting more; 0 is none, 10 most."),
    ("ROC", "right texts kept against wrong ones kept as the bar falls; a curve near the upper left corner is good."),
    ("AUC", "area under the ROC curve: how often a right text scores above a wrong one; 0.5 is a coin, 1 is perfect."),
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


def amount(value: float | None, unit: Unit) -> str:
    """A metric's value: `45.2 %` for shares, `0.912` for points."""
    if value is None:
        return UNKNOWN
    return f"{value:.3f}" if unit == "points" else f"{100 * value:.1f} %"


def gain(metric: Metric) -> str:
    """`+7.1 [+5.2, +9.0]`: percentage points for shares."""
    if metric.gain is None:
        return UNKNOWN
    scale, digits = (1, 3) if metric.unit == "points" else (100, 1)
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
    return METRIC_WORDS.get(metric.name, (metric.name,))[0]


def short(metric: Metric) -> str:
    """The same where there is little room."""
    return METRIC_WORDS.get(metric.name, ("", metric.name))[1]


def explanation(metric: Metric) -> str:
    """What the metric means, in plain words; empty for a name we do not know."""
    return METRIC_WORDS.get(metric.name, ("", "", ""))[2]


def model_name(name: str) -> str:
    """What readers call a model; its own name for one we do not know."""
    return MODEL_WORDS.get(name, name)


def kind_name(kind: str) -> str:
    """What readers call a kind of web text; its own name for one we do not know."""
    return KIND_WORDS.get(kind, (kind,))[0]


def stage_name(stage: str) -> str:
    """`models/noisy` → `training: first model`, `cleaners/filter-1` → `tuning the filter, round 1`."""
    folder, _, name = stage.partition("/")
    if folder in ("models", "evaluated"):
        return f"{'training' if folder == 'models' else 'testing'}: {model_name(name)}"
    done, _, turn = stage.rpartition("-")
    if done in STAGE_WORDS and turn.isdigit():
        return f"{STAGE_WORDS[done]}, round {turn}"
    return STAGE_WORDS.get(stage, stage)


def verdict(metric: Metric) -> str:
    """`better`, `worse` or `no clear change`, by whether the interval leaves zero out; empty where unknown."""
    if metric.gain is None:
        return ""
    _, low, high = metric.gain
    return "better" if low > 0 else "worse" if high < 0 else "no clear change"


def reason(card: Card) -> str:
    """Why this pair ended where it did: the ledger's sentence, its code put into words where it begins with one."""
    code, _, message = card.reason.partition(": ")
    if code not in REASON_WORDS:
        return card.reason or "no reason was recorded"
    return f"{REASON_WORDS[code]} ({message})" if message else REASON_WORDS[code]


def score_text(score: float, threshold: float | None) -> str:
    """`0.24`; where the bar would read the same, more digits and the bar beside it: `0.2419 (bar 0.2420)`."""
    if threshold is None or score == threshold:
        return f"{score:.2f}"
    digits = next((d for d in range(2, 9) if f"{score:.{d}f}" != f"{threshold:.{d}f}"), 9)
    return f"{score:.{digits}f}" + (f" (bar {threshold:.{digits}f})" if digits > 2 else "")
