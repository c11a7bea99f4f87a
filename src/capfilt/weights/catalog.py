"""Every published BLIP checkpoint, and what it must say about the picture that its authors showed.

None of these files was at hand when this was written: names, sizes and answers are those that their publishers give,
and `note` says what is only probable. Sizes in bytes are counted from the parameters.
"""

from dataclasses import dataclass
from typing import Literal

LICENCE = "BSD-3-Clause"
DEMO = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/demo.jpg"
OFFICIAL = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/"
LAVIS = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP/"
HUB = "https://huggingface.co/"

# Kind → what its text transformer does, of those that are a Blip.
ROLES: dict[str, tuple[Literal["read", "look", "speak"], ...]] = {
    "pretrain": ("read", "look", "speak"),
    "match": ("read", "look"),
    "caption": ("speak",),
}
ABILITIES = {
    "pretrain": ("caption", "match", "embed"),
    "caption": ("caption",),
    "match": ("match", "embed"),
    "vqa": ("ask",),
    "nlvr": ("judge",),
    "visdial": ("reply",),
}
TRAINED = {  # (kind, tower) → parameters that are used; the image size changes a thousandth
    ("pretrain", "base"): 252_441_919,
    ("pretrain", "large"): 474_729_023,
    ("caption", "base"): 223_971_644,
    ("caption", "large"): 446_290_492,
    ("match", "base"): 223_744_259,
    ("match", "large"): 446_128_643,
    ("vqa", "base"): 361_478_972,
    ("nlvr", "base"): 259_372_034,
}
TWICE = 30524 * 768  # the word table, which Hugging Face's files of models that speak hold under two names


@dataclass(frozen=True)
class Expected:
    """What a checkpoint answers about DEMO, and who says so.

    task:   caption (greedy), beams (beam search over 3, 5 to 20 ids, as the original), ask, or match.
    asked:  the prompt, question or text.
    answer: the text; "" for a match.
    ids:    the ids written, [DEC] and [SEP] included, where they are known.
    itm:    probability of a match; itc: cosine; each within .01 where it is known.
    first:  what stands at position 0 of a text that is matched: the original's shop window left [CLS] there.
    """

    task: Literal["caption", "beams", "ask", "match"]
    asked: str
    answer: str = ""
    ids: tuple[int, ...] = ()
    itm: float | None = None
    itc: float | None = None
    first: Literal["enc", "cls"] = "enc"
    source: str = "integration tests of transformers"


@dataclass(frozen=True)
class Entry:
    """One checkpoint. `name` is a hub id or a file name; `px` the image size of its position table."""

    name: str
    publisher: Literal["hub", "official", "lavis"]
    kind: str
    tower: Literal["base", "large"]
    px: int
    note: str = ""
    expected: tuple[Expected, ...] = ()

    @property
    def abilities(self) -> tuple[str, ...]:
        """What it can do."""
        return ABILITIES[self.kind]

    @property
    def url(self) -> str:
        """Where it comes from."""
        return {"hub": HUB, "official": OFFICIAL, "lavis": LAVIS}[self.publisher] + self.name

    @property
    def bytes(self) -> int:
        """About how large the file is, momentum copies not counted."""
        twice = TWICE if self.publisher == "hub" and self.kind in ("caption", "vqa") else 0
        return 4 * (TRAINED[self.kind, self.tower] + twice)


_NOTEBOOK = "demo notebook of the original"
_BEACH = (30522, 1037, 2450, 3564, 2006, 1996, 3509, 2007, 2014, 3899, 102)
_PICTURE = (30522, 1037, 3861, 1997, 1037, 2450, 1998, 2014, 3899, 2006, 1996, 3509, 102)
_CAPTIONS = (
    Expected("caption", "", "a woman sitting on the beach with her dog", _BEACH),
    Expected("caption", "a picture of", "a woman and her dog on the beach", _PICTURE),
)
_DOGS = Expected("ask", "how many dogs are in the picture?", "1", (30522, 1015, 102))
_WHERE = Expected("ask", "where is the woman sitting?", "on beach", source=_NOTEBOOK)
_SITTING = "a woman sitting on the beach with a dog"
_SAID = Expected("beams", "a picture of ", _SITTING, source=_NOTEBOOK)
_FITS = Expected("match", _SITTING, itm=0.9960, itc=0.5262, first="cls", source=_NOTEBOOK)
_FITS_HUB = Expected("match", "A woman and her dog sitting in a beach", itm=0.9971, itc=0.5162, first="cls")

_AT_384 = "works at 384 px, the original at 480: its positions were resized when it was converted"
_MOMENTUM = "twice as large if it still has its momentum copies and queues; they are left out"

CATALOG: tuple[Entry, ...] = (
    Entry(
        "Salesforce/blip-image-captioning-base",
        "hub",
        "caption",
        "base",
        384,
        "probably model_base_capfilt_large, so not tuned on COCO, though its card says so",
        _CAPTIONS,
    ),
    Entry("Salesforce/blip-image-captioning-large", "hub", "caption", "large", 384, "probably model_large_caption"),
    Entry("Salesforce/blip-vqa-base", "hub", "vqa", "base", 384, f"probably model_vqa; {_AT_384}", (_DOGS,)),
    Entry(
        "Salesforce/blip-vqa-capfilt-large",
        "hub",
        "vqa",
        "base",
        384,
        f"model_base_vqa_capfilt_large, a base tower despite the name; {_AT_384}",
    ),
    Entry("Salesforce/blip-itm-base-coco", "hub", "match", "base", 384, "model_base_retrieval_coco", (_FITS_HUB,)),
    Entry("Salesforce/blip-itm-base-flickr", "hub", "match", "base", 384, "model_base_retrieval_flickr"),
    Entry("Salesforce/blip-itm-large-coco", "hub", "match", "large", 384, "model_large_retrieval_coco"),
    Entry("Salesforce/blip-itm-large-flickr", "hub", "match", "large", 384, "model_large_retrieval_flickr"),
    Entry("model_base_14M.pth", "official", "pretrain", "base", 224, f"14M images; {_MOMENTUM}"),
    Entry("model_base.pth", "official", "pretrain", "base", 224, f"129M images; {_MOMENTUM}"),
    Entry(
        "model_base_capfilt_large.pth",
        "official",
        "pretrain",
        "base",
        224,
        f"129M images, texts cleaned by large models; {_MOMENTUM}",
        (_SAID,),
    ),
    Entry("model_large.pth", "official", "pretrain", "large", 224, f"129M images; {_MOMENTUM}"),
    Entry("model_base_retrieval_coco.pth", "official", "match", "base", 384, _MOMENTUM, (_FITS,)),
    Entry("model_base_retrieval_flickr.pth", "official", "match", "base", 384, _MOMENTUM),
    Entry("model_large_retrieval_coco.pth", "official", "match", "large", 384, _MOMENTUM),
    Entry("model_large_retrieval_flickr.pth", "official", "match", "large", 384, _MOMENTUM),
    Entry("model_base_caption_capfilt_large.pth", "official", "caption", "base", 384, "tuned on COCO"),
    Entry("model_large_caption.pth", "official", "caption", "large", 384, "tuned on COCO"),
    Entry("model_vqa.pth", "official", "vqa", "base", 480),
    Entry(
        "model_base_vqa_capfilt_large.pth",
        "official",
        "vqa",
        "base",
        480,
        "a base tower: `large` is the size of the models that cleaned its texts",
        (_WHERE,),
    ),
    Entry("model_base_nlvr.pth", "official", "nlvr", "base", 384),
    Entry("blip_coco_caption_base.pth", "lavis", "caption", "base", 384, "tuned on COCO"),
    Entry("blip_coco_retrieval.pth", "lavis", "match", "base", 384, _MOMENTUM),
    Entry("blip_flickr_retrieval.pth", "lavis", "match", "base", 384, _MOMENTUM),
    Entry("blip_okvqa.pth", "lavis", "vqa", "base", 480, "tuned on OK-VQA"),
    Entry("blip_aokvqa.pth", "lavis", "vqa", "base", 480, "tuned on A-OKVQA"),
)


def entry(name: str) -> Entry | None:
    """The checkpoint of that hub id or file name, if it is a published one."""
    return next((found for found in CATALOG if found.name == name), None)
