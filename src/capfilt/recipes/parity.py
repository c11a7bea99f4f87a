"""`make parity`: our BLIP against that of `transformers`, with random weights of the real size, and the time to load.

    python -m capfilt.recipes.parity          # some minutes and 6 GiB on two cores; writes runs/parity/results.json

Weights go the way a user's go: `transformers` saves them, `open_checkpoint` reads them. Its vision eps is set to the
original's 1e-6; texts are not padded (its text model does not hide padding in cross-attention) and start with the mark
that each role is trained with. Differences are absolute; all must stay below 1e-4, and greedy ids must be equal.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn

from capfilt.errors import CheckFailed, ConfigError
from capfilt.files import write_json, write_text
from capfilt.predict.decode import Decoding, decode
from capfilt.predict.predictor import BlipSpeech
from capfilt.runtime import generator, machine
from capfilt.weights.checkpoint import Opened, open_checkpoint
from capfilt.weights.store import save_as

GOAL = 1e-4
LOAD_S, LOAD_MEMORY = 3.0, 1.6  # goals: seconds from disk to the first caption, peak memory over the file's size
AT_ONCE = 4  # images
SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
Kind = Literal["caption", "match", "vqa"]
CLASSES: dict[Kind, str] = {
    "caption": "BlipForConditionalGeneration",
    "match": "BlipForImageTextRetrieval",
    "vqa": "BlipForQuestionAnswering",
}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES: dict[str, dict[str, dict[str, Any]]] = {  # what differs from the classes' own sizes
    "tiny": {
        "vision_config": {**TINY, "image_size": 32, "patch_size": 8},
        "text_config": {**TINY, "encoder_hidden_size": 32, "vocab_size": 122, "bos_token_id": 120},
    },
    "base": {"vision_config": {}, "text_config": {"num_attention_heads": 12}},
    "base-224": {"vision_config": {"image_size": 224}, "text_config": {"num_attention_heads": 12}},
}
# Random weights like to repeat one word; a penalty makes captions of many. Both libraries have it.
GREEDY = Decoding(method="greedy", max_length=12, min_length=0, repetition_penalty=2.0)
LOADING = """
import json, resource, sys, time
began = time.perf_counter()
import numpy as np
import capfilt
imported = time.perf_counter()
model = capfilt.load(sys.argv[1])
loaded = time.perf_counter()
model.caption(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8), beams=3)
done = time.perf_counter()
try:  # where there is /proc: getrusage counts what the parent held when it started this process
    peak = 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"import_s": imported - began, "load_s": loaded - imported, "caption_s": done - loaded, "peak": peak}))
"""


def parity(out: Path = Path("runs/parity"), images: int = 32) -> dict[str, Any]:
    """Compares base-size models of all kinds, times loading, writes `results.json`.

    Raises CheckFailed where a difference passes the goal; seconds and memory are reported only, as they hang on the
    machine.
    """
    results: dict[str, Any] = {"machine": machine(), "differences": {}, "loading": {}}
    for kind in CLASSES:
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            found, ours = compared(kind, "base", folder, images)
            results["differences"] |= found
            for name, value in found.items():
                print(f"{name:<24} {value:.1e}", flush=True)
            if kind == "caption":
                save_as(ours.model, ours.tokenizer, folder / "official.pth", "official")
                del ours
                for path in (folder, folder / "official.pth"):
                    name = "official .pth" if path.suffix else "Hugging Face folder"
                    results["loading"][name] = row = loading(path)
                    seconds = row["load_s"] + row["caption_s"]
                    print(
                        f"{name}: first caption {seconds:.1f} s after the call (goal {LOAD_S}), imports before it "
                        f"{row['import_s']:.1f} s; peak memory {row['memory']:.2f}x the file (goal {LOAD_MEMORY})",
                        flush=True,
                    )
            write_json(out / "results.json", results)
    wrong = {name: value for name, value in results["differences"].items() if not value <= GOAL}
    if wrong:
        raise CheckFailed(f"parity: beyond {GOAL}: {wrong}")
    return results


def compared(kind: Kind, size: str, folder: Path, images: int) -> tuple[dict[str, float], Opened]:
    """(measure → largest absolute difference, our model). `ids that differ` counts images of so many.

    folder: takes the checkpoint that both use.

    Raises ConfigError without `transformers`.
    """
    theirs = peer(kind, size, folder)
    ours = open_checkpoint(folder)
    measure = {"caption": _captioner, "match": _matcher, "vqa": _answerer}[kind]
    with torch.inference_mode():
        found = measure(theirs, ours.model, images)
    return {f"{kind}: {name}": value for name, value in found.items()}, ours


def peer(kind: Kind, size: str, folder: Path) -> nn.Module:
    """The class of `transformers` with random weights, in eval mode, saved to `folder` with a vocabulary."""
    try:
        import transformers
    except ImportError:
        raise ConfigError("parity needs transformers: pip install 'capfilt[dev]'") from None
    sizes = {name: dict(values) for name, values in SIZES[size].items()}
    sizes["vision_config"]["layer_norm_eps"] = 1e-6
    library: Any = transformers
    config = library.BlipConfig(**sizes)
    model = getattr(library, CLASSES[kind])(config).eval()
    random = generator("parity", kind)
    spread = (2 / config.text_config.hidden_size) ** 0.5  # .25 at width 32, .05 at 768: words and images both count
    with torch.no_grad():
        for module in model.modules():
            for name, p in module.named_parameters(recurse=False):
                norm = isinstance(module, nn.LayerNorm) and name == "weight"
                p.copy_(torch.randn(p.shape, generator=random) * (spread if p.ndim > 1 else 0.2) + norm)
    model.save_pretrained(folder)
    words = config.text_config.vocab_size - 2  # [DEC] and [ENC] come behind
    write_text(folder / "vocab.txt", "".join(SPECIAL.get(i, f"word{i}") + "\n" for i in range(words)))
    return model


def loading(checkpoint: Path) -> dict[str, float]:
    """Seconds and peak memory from disk to the first caption (3 beams) in a process of its own; the file is cached."""
    done = subprocess.run([sys.executable, "-c", LOADING, str(checkpoint)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckFailed(f"parity: loading {checkpoint.name} failed: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout)
    file = checkpoint if checkpoint.is_file() else checkpoint / "model.safetensors"
    found["file"] = file.stat().st_size
    found["memory"] = found["peak"] / found["file"]
    return {name: round(value, 3) for name, value in found.items()}


def _captioner(theirs: Any, ours: Any, images: int) -> dict[str, float]:
    special = ours.config.special
    pixels, prompt = _pixels(ours, images), _ids(ours, 1, 4)
    prompt[:, 0] = special.dec
    ids, few = _ids(ours, AT_ONCE, 12), pixels[:AT_ONCE]
    ids[:, 0] = special.dec
    states = ours.text.speak(ids, torch.ones_like(ids), ours.text.project(ours.vit(few)))
    off = _off(theirs(pixel_values=few, input_ids=ids).logits, ours.text.word_logits(states))
    differ, said = 0, set()
    for part in pixels.split(AT_ONCE):
        seen = ours.text.project(ours.vit(part))
        start = prompt.expand(len(part), -1)
        closed = torch.cat((start, start[:, :1]), dim=1)  # it drops the last id of a prompt, which should be [SEP]
        wanted = theirs.generate(
            pixel_values=part,
            input_ids=closed,
            attention_mask=torch.ones_like(closed),
            max_length=GREEDY.max_length,
            repetition_penalty=GREEDY.repetition_penalty,
            num_beams=1,
            do_sample=False,
        )
        speech = BlipSpeech(ours.text, seen)
        for row, (text,) in zip(wanted.tolist(), decode(speech, start, GREEDY, special.sep, special.pad), strict=True):
            differ += tuple(row[start.shape[1] :][: len(text.ids)]) != text.ids
            said.add(text.ids)
    if len(said) < 2:
        raise CheckFailed("parity: one caption for all images compares nothing")
    return {"logits": off, f"ids that differ, of {images}": differ}


def _matcher(theirs: Any, ours: Any, images: int) -> dict[str, float]:
    pixels, ids = _pixels(ours, AT_ONCE), _ids(ours, AT_ONCE, 9)
    mask = torch.ones_like(ids)
    image = ours.vit(pixels)
    cosines = ours.image_vec(image) @ ours.text_vec(ids, mask).T
    logits = ours.match_logits(ids, mask, ours.text.project(image))
    itc = theirs(input_ids=ids, pixel_values=pixels, attention_mask=mask, use_itm_head=False).itm_score
    ids = ids.clone()
    ids[:, 0] = ours.config.special.enc
    itm = theirs(input_ids=ids, pixel_values=pixels, attention_mask=mask).itm_score
    return {"ITM": _off(itm, logits), "ITC": _off(itc, cosines)}


def _answerer(theirs: Any, ours: Any, images: int) -> dict[str, float]:
    pixels, ids, answer = _pixels(ours, AT_ONCE), _ids(ours, AT_ONCE, 9), _ids(ours, AT_ONCE, 4)
    ids[:, 0], answer[:, 0] = ours.config.special.enc, ours.config.special.dec
    states = ours.question(ids, torch.ones_like(ids), ours.text.project(ours.vit(pixels)))
    logits = ours.answer_logits(answer, torch.ones_like(answer), ours.answer.project(states), None)
    image = theirs.vision_model(pixel_values=pixels).last_hidden_state
    wanted = theirs.text_encoder(input_ids=ids, encoder_hidden_states=image).last_hidden_state
    spoken = theirs.text_decoder(input_ids=answer, encoder_hidden_states=wanted).logits
    return {"question states": _off(wanted, states), "answer logits": _off(spoken, logits)}


def _pixels(ours: Any, images: int) -> Tensor:
    """Noise under a colour of each image's own, so that captions differ."""
    random, px = generator("parity", "pixels"), ours.config.vit.px
    colours = 2 * torch.randn(images, 3, 1, 1, generator=random)
    return colours + torch.randn(images, 3, px, px, generator=random)


def _ids(ours: Any, rows: int, length: int) -> Tensor:
    """Texts without a mark, from [CLS] on."""
    special, words = ours.config.special, ours.config.text.vocab - 2
    ids = torch.randint(104, words, (rows, length), generator=generator("parity", "ids", length))
    ids[:, 0] = special.cls
    return ids


def _off(theirs: Tensor, ours: Tensor) -> float:
    if theirs.shape != ours.shape:
        raise CheckFailed(f"parity: shapes {tuple(theirs.shape)} and {tuple(ours.shape)}")
    return float((theirs - ours).abs().max())


if __name__ == "__main__":
    parity()
