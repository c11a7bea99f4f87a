"""The layout of the checkpoints that BLIP was published with: two text transformers whose shared weights are tied.

The pre-trained model names everything but the self-attention twice (`text_encoder` and `text_decoder.bert`); the
captioner has only the decoder, matching and retrieval only the encoder, question answering both, not tied. `*_m` are
the momentum twins, queues are stored (E, K). LAVIS uses the same names, and `queue_ptr` in retrieval too.
"""

from collections.abc import Collection

from capfilt.weights.rename import Layout, Rules, To, under

VIT: Rules = {
    "cls_token": To("cls"),
    "pos_embed": To("positions", grid=True),
    "patch_embed.proj.*": To("stem.proj.*"),
    "blocks.*.norm1.*": To("blocks.*.norm1.*"),
    "blocks.*.attn.qkv.*": To("blocks.*.attention.qkv.*"),
    "blocks.*.attn.proj.*": To("blocks.*.attention.out.*"),
    "blocks.*.norm2.*": To("blocks.*.norm2.*"),
    "blocks.*.mlp.fc1.*": To("blocks.*.fc1.*"),
    "blocks.*.mlp.fc2.*": To("blocks.*.fc2.*"),
    "norm.*": To("norm.*"),
}

# What reading, looking and speaking share, and what sees.
BODY: Rules = {
    "embeddings.position_ids": None,  # 0, 1, 2, ...
    "embeddings.word_embeddings.weight": To("words.weight"),
    "embeddings.position_embeddings.weight": To("positions.weight"),
    "embeddings.LayerNorm.*": To("norm.*"),
    "encoder.layer.*.crossattention.output.LayerNorm.*": To("layers.*.cross_norm.*"),
    "encoder.layer.*.intermediate.dense.*": To("layers.*.fc1.*"),
    "encoder.layer.*.output.dense.*": To("layers.*.fc2.*"),
    "encoder.layer.*.output.LayerNorm.*": To("layers.*.norm.*"),
}

CROSS: Rules = {
    "encoder.layer.*.crossattention.self.query.*": To("layers.*.cross.q.*"),
    "encoder.layer.*.crossattention.self.key.*": To("layers.*.cross.kv.*", part=0, of=2),
    "encoder.layer.*.crossattention.self.value.*": To("layers.*.cross.kv.*", part=1, of=2),
    "encoder.layer.*.crossattention.output.dense.*": To("layers.*.cross.out.*"),
}

TWO_CROSSES: Rules = {
    "encoder.layer.*.crossattention.self0.query.*": To("layers.*.cross0.q.*"),
    "encoder.layer.*.crossattention.self0.key.*": To("layers.*.cross0.kv.*", part=0, of=2),
    "encoder.layer.*.crossattention.self0.value.*": To("layers.*.cross0.kv.*", part=1, of=2),
    "encoder.layer.*.crossattention.output.dense0.*": To("layers.*.cross0.out.*"),
    "encoder.layer.*.crossattention.self1.query.*": To("layers.*.cross1.q.*"),
    "encoder.layer.*.crossattention.self1.key.*": To("layers.*.cross1.kv.*", part=0, of=2),
    "encoder.layer.*.crossattention.self1.value.*": To("layers.*.cross1.kv.*", part=1, of=2),
    "encoder.layer.*.crossattention.output.dense1.*": To("layers.*.cross1.out.*"),
    "encoder.layer.*.crossattention.output.merge_layer.*": To("layers.*.merge.*"),
}

BIDIRECTIONAL: Rules = {
    "encoder.layer.*.attention.self.query.*": To("layers.*.bidirectional.qkv.*", part=0, of=3),
    "encoder.layer.*.attention.self.key.*": To("layers.*.bidirectional.qkv.*", part=1, of=3),
    "encoder.layer.*.attention.self.value.*": To("layers.*.bidirectional.qkv.*", part=2, of=3),
    "encoder.layer.*.attention.output.dense.*": To("layers.*.bidirectional.out.*"),
    "encoder.layer.*.attention.output.LayerNorm.*": To("layers.*.bidirectional_norm.*"),
}

CAUSAL: Rules = {
    "encoder.layer.*.attention.self.query.*": To("layers.*.causal.qkv.*", part=0, of=3),
    "encoder.layer.*.attention.self.key.*": To("layers.*.causal.qkv.*", part=1, of=3),
    "encoder.layer.*.attention.self.value.*": To("layers.*.causal.qkv.*", part=2, of=3),
    "encoder.layer.*.attention.output.dense.*": To("layers.*.causal.out.*"),
    "encoder.layer.*.attention.output.LayerNorm.*": To("layers.*.causal_norm.*"),
}

WORD_HEAD: Rules = {
    "transform.dense.*": To("head.dense.*"),
    "transform.LayerNorm.*": To("head.norm.*"),
    "bias": To("head.bias"),
    "decoder.weight": To("words.weight"),
    "decoder.bias": To("head.bias"),
}

HEADS: Rules = {
    "vision_proj.*": To("image_proj.*"),
    "text_proj.*": To("text_proj.*"),
    "itm_head.*": To("match_head.*"),
}


def speaker(own: str) -> dict[str, To | None]:
    """The text decoder with its word head, as our text transformer `own`."""
    body = under("text_decoder.bert.", own, {**BODY, **CROSS, **CAUSAL})
    return {**body, **under("text_decoder.cls.predictions.", own, WORD_HEAD)}


TOWER = under("visual_encoder.", "vit.", VIT)
READER = under("text_encoder.", "text.", {**BODY, **CROSS, **BIDIRECTIONAL})
PAIR_READER = under("text_encoder.", "text.", {**BODY, **TWO_CROSSES, **BIDIRECTIONAL})
SPEAKER = speaker("text.")
TWINS: Rules = {
    **under("visual_encoder_m.", "twins.vit.", VIT),
    **under("text_encoder_m.", "twins.text.", {**BODY, **CROSS, **BIDIRECTIONAL}),
    "vision_proj_m.*": To("twins.image_proj.*"),
    "text_proj_m.*": To("twins.text_proj.*"),
    "image_queue": To("twins.image_queue", turned=True),
    "text_queue": To("twins.text_queue", turned=True),
    "temp": To("temperature"),
}

NO_IMAGE = -100  # no image has this number, so an empty place in the queue is nobody's partner
START = {"temperature": 0.07}  # of a layout that compares by plain cosines

PRETRAIN = Layout(
    "official pretrain",
    {**TOWER, **READER, **SPEAKER, **HEADS, **TWINS, "queue_ptr": To("twins.pointer")},
    {"twins.id_queue": NO_IMAGE},
)
CAPTIONER = Layout("official captioner", {**TOWER, **SPEAKER})
ITM = Layout("official image-text matching", {**TOWER, **READER, **HEADS}, START)
RETRIEVAL = Layout(
    "official retrieval",
    {
        **TOWER,
        **READER,
        **HEADS,
        **TWINS,
        "ptr_queue": To("twins.pointer"),
        "idx_queue": To("twins.id_queue", flat=True),
    },
)
VQA = Layout("official question answering", {**TOWER, **READER, **speaker("answer.")})
NLVR = Layout(
    "official pair reasoning", {**TOWER, **PAIR_READER, "cls_head.0.*": To("dense.*"), "cls_head.2.*": To("verdict.*")}
)

# What a checkpoint holds for going on with its own training and nobody who uses the model wants.
LEFT: Rules = {
    "visual_encoder_m.**": None,
    "text_encoder_m.**": None,
    "vision_proj_m.*": None,
    "text_proj_m.*": None,
    "image_queue": None,
    "text_queue": None,
    "idx_queue": None,
    "ptr_queue": None,
    "queue_ptr": None,
}
TEMPERATURE: Rules = {"temp": To("temperature")}

# What a model of each kind is read by when it is to be used.
IN_USE: dict[str, Layout] = {
    "pretrain": Layout("official pretrain", {**TOWER, **READER, **SPEAKER, **HEADS, **TEMPERATURE, **LEFT}, START),
    "match": Layout("official image-text matching", {**TOWER, **READER, **HEADS, **TEMPERATURE, **LEFT}, START),
    "caption": CAPTIONER,
    "vqa": VQA,
    "nlvr": NLVR,
}


def kind_of(names: Collection[str]) -> str | None:
    """Which kind of model has these keys (Hugging Face names its texts the same); None for none that is known."""
    query = "encoder.layer.0.attention.self.query.weight"  # tied to nothing, so never left out
    reads, speaks = f"text_encoder.{query}" in names, f"text_decoder.bert.{query}" in names
    if "cls_head.2.weight" in names and "text_encoder.encoder.layer.0.crossattention.self0.query.weight" in names:
        return "nlvr"
    return {
        (True, True, True): "pretrain",
        (True, True, False): "vqa",
        (True, False, True): "match",
        (False, True, False): "caption",
    }.get((reads, speaks, "itm_head.weight" in names))
