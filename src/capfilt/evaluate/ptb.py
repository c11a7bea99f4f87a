"""The words that the COCO caption evaluation counts: Penn Treebank tokens, lower-cased, punctuation left out.

Published BLEU, ROUGE, CIDEr, METEOR numbers are taken over these words, so ours must be too. The original runs a Java
program for it; this is a lexer of our own, written from the observed output of that program. It gives the same words on
every human caption of Flickr8k; on raw web text about one line in forty differs (rare abbreviations, broken marks).
"""

import re
from collections.abc import Iterable

# The full stop belongs to these words. Measured on captions: a stop after any other word ends the sentence.
ABBREVIATIONS = (
    "mr mrs ms dr prof rev hon gen col capt lt sgt cpl maj cmdr gov sen rep st mt ft ave blvd rd jr sr bros co corp inc ltd "
    "dept univ assn vs etc ph.d jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs "
    "fri sat sun ala ariz ark calif colo conn dak del fla ga ill ind kan kans ky la md mich minn mo mont nev okla ore pa "
    "penn tenn tex va vt wash wis wyo messrs adm brig comdr pfc pvt supt det sec esq est approx ph dist"
)
SYMBOLS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"} | {
    "£": "#", "€": "$", "¢": "cents", "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
    "&amp;": "&", "&lt;": "<", "&gt;": ">", "\u200b": "",
}  # fmt: skip

APOSTROPHE = "['’]"
RULES = (
    r"(?:https?://|www\.)[^\s\"<>|()]*[^\s\"<>|().,!?;:'-]",
    r"</?[a-z][^<>]*>|&(?:quot|lt|gt|amp|#\d+);",
    r"[\w.]+@\w+(?:\.\w+)+",
    rf"(?<!\S)(?:[:;=8]{APOSTROPHE}?-?[()DPp3](?!\w)|:[-o]?[/|])",
    r"(?-i:[A-Z]+&[A-Z]+)\b|c\+\+",
    r"\b(?:[^\W\d_]\.){2,}(?:[^\W\d_](?![\w.]))?|(?<![\w'’])[^\W\d_]\.(?!\w)",
    r"\b(?:can(?=not\b)|gon(?=na\b)|got(?=ta\b)|wan(?=na\b)|gim(?=me\b)|lem(?=me\b))",
    rf"{APOSTROPHE}t(?=(?:is|was)\b)|(?<!\w){APOSTROPHE}n{APOSTROPHE}?(?!\w)|(?<=rock){APOSTROPHE}n{APOSTROPHE}(?=roll)",
    rf"y{APOSTROPHE}(?=all\b)|\bo{APOSTROPHE}[^\W\d_]+|\b[dl]{APOSTROPHE}[^\W\d_]{{2,}}",
    rf"n{APOSTROPHE}t\b|(?<=\w){APOSTROPHE}(?:s|m|d|re|ve|ll)\b|(?<!\S){APOSTROPHE}(?:s|m|d|re|ve|ll)\b",
    rf"(?<![\w]){APOSTROPHE}\d\ds?\b",
    rf"\b(?:{'|'.join(ABBREVIATIONS.split())})\.(?!\w)|\bnos?\.(?=\s*\d)",
    r"(?<![\w-])[-+]?\d+(?:[.,:/]\d+)+(?:(?:-[^\W_]+)+|[^\W\d_]?(?!\w))|(?<!\S)[-+]\d+|\d+(?:[.,:/]\d+)+|[.:,]\d+(?!\w)",
    rf"@?\w+?(?=n{APOSTROPHE}t\b)|@\w+|#[^\W\d_]\w*",
    r"[^\W_]+(?:[-_/]+[^\W_]+)+|[^\W_]+(?:\.[^\W\d_]+)+|[^\W_]+",
    r"[?!]{2,}|\.\.\.|\S",
)
LEXER = re.compile("|".join(RULES), re.IGNORECASE)
DROPPED = frozenset("""'"`‘’“”.?!,:;-–—…""") | {"...", "&quot;"}


def words(text: str) -> list[str]:
    out = []
    for match in LEXER.finditer(text):
        token = match.group().lower().replace("’", "'")
        if token not in DROPPED:
            out.append(SYMBOLS.get(token) or token.replace("(", "-lrb-").replace(")", "-rrb-"))
    return out


def tokenize(text: str) -> str:
    return " ".join(words(text))
