"""What a run has to tell to somebody who has never heard of the method: sentences made from its numbers."""

from capfilt.report.record import Counts, Filter, Metric, Report, Texts
from capfilt.report.words import FIRST, GLOSSARY, SECOND, amount, number, percent, verdict


def intro(report: Report) -> list[str]:
    """What this page is about and, for drawn data, how the truth can be known: a paragraph each."""
    told = [
        "Texts that come with images on the web often do not describe them, and a model that learns from such pairs "
        "learns their mistakes too. BLIP's answer (arXiv 2201.12086): train a first model on the pairs as they are, "
        "let copies of it write new texts and throw out bad ones, and train a second model on what is left. "
        "This page shows what that brought here."
    ]
    if report.drawn:
        told.append(
            "Nothing here comes from the web or from people: a program drew small scenes of coloured shapes and wrote "
            "all texts, true ones for the “human pairs” and the test, many that are wrong on purpose for the “web "
            "pairs”. It knows what it drew, so it can check any sentence against its picture: that is why this page "
            "knows what is true."
        )
    return told


def glossary(report: Report) -> list[tuple[str, str]]:
    """(term, meaning) of every word that a stranger would stumble over."""
    if report.drawn:
        human = "drawn pictures with a true text; they stand for the few good pairs that people would write."
        web = "the text that came with a picture: here written by the program that drew it, often wrong on purpose."
    else:
        human = "the few trusted pairs of a run, such as captions that people wrote with care."
        web = "the text that was found with an image: a title, a file name, sometimes a real description."
    return [("Human pairs", human), ("Web text", web), *GLOSSARY]


def summary(report: Report) -> list[tuple[str, str]]:
    """(heading, sentences) in the order things happened."""
    found, texts = report.filter or Filter(), report.texts or Texts()
    return [
        ("What went in", _went_in(report, texts)),
        ("What the captioner wrote", _written(report, texts)),
        ("What the filter threw out", _thrown_out(report.counts, found, texts)),
        ("What it brought", _brought(report)),
    ]


def _went_in(report: Report, texts: Texts) -> str:
    counts, drawn = report.counts, report.drawn
    what = "drawn pictures, each with a text that may be wrong" if drawn else "images, each with the text found with it"
    words = f"{counts.given:,} web pairs: {what}."
    if texts.truth_web is not None:
        words += f" {amount(texts.truth_web, 'share')} of what those texts say is true of their image."
    if texts.human:
        what = "drawn pictures with a true text" if drawn else "images with a trusted text"
        words += f" Besides, {texts.human:,} human pairs: {what}, to teach what a good text is."
    if counts.failed:
        words += f" {counts.failed:,} web pairs could not be read and were set aside, each with its reason."
    return words


def _written(report: Report, texts: Texts) -> str:
    words = f"The {FIRST} learned from all of these pairs, right or wrong."
    words += f" {report.cleaners}" if report.cleaners else ""
    words += " The captioner looked at the web images and wrote "
    words += "a new text for each that it could read." if texts.synthetic is None else f"{texts.synthetic:,} new texts."
    if texts.truth_synthetic is not None:
        words += f" {amount(texts.truth_synthetic, 'share')} of what they say is true."
    return words


def _thrown_out(counts: Counts, found: Filter, texts: Texts) -> str:
    bar = "" if found.threshold is None else f" and threw out those under {number(found.threshold)}"
    words = f"The filter scored every text, web and synthetic, from 0 (does not fit the image) to 1 (fits){bar}. "
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
        before, after = amount(texts.truth_web, "share"), amount(texts.truth_cleaned, "share")
        words += f" The true share of what the texts say {moved} from {before} to {after}."
    return words


_SENTENCES = {
    "tr1": "it puts a right text first for {after} of the test images (first model: {before})",
    "ir1": "it puts the right image first for {after} of the test texts (first model: {before})",
    "truth": "{after} of what its captions state is true (first model: {before})",
    "cider": "its captions agree with the test set's own to {after} CIDEr (first model: {before})",
    "coverage": "its captions mention {after} of what an image shows (first model: {before})",
}


def _brought(report: Report) -> str:
    words = f"The {SECOND} started from nothing again and learned from the human pairs and the cleaned set: "
    words += "all texts that stayed, web and synthetic."
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
