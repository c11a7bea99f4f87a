"""The layout of the checkpoints that BLIP was published with: two text transformers whose shared weights are tied.

The pre-trained model names everything but the self-attention twice (`text_encoder` and `text_decoder.bert`); the
captioner has only the decoder, matching and retrieval only the encoder. `*_m` are the momentum twins, queues are
stored (E, K).
"""

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

# What reading, looking and speaking share.
TEXT: Rules = {
    "embeddings.position_ids": None,  # 0, 1, 2, ...
    "embeddings.word_embeddings.weight": To("words.weight"),
    "embeddings.position_embeddings.weight": To("positions.weight"),
    "embeddings.LayerNorm.*": To("norm.*"),
    "encoder.layer.*.crossattention.self.query.*": To("layers.*.cross.q.*"),
    "encoder.layer.*.crossattention.self.key.*": To("layers.*.cross.kv.*", part=0, of=2),
    "encoder.layer.*.crossattention.self.value.*": To("layers.*.cross.kv.*", part=1, of=2),
    "encoder.layer.*.crossattention.output.dense.*": To("layers.*.cross.out.*"),
    "encoder.layer.*.crossattention.output.LayerNorm.*": To("layers.*.cross_norm.*"),
    "encoder.layer.*.intermediate.dense.*": To("layers.*.fc1.*"),
    "encoder.layer.*.output.dense.*": To("layers.*.fc2.*"),
    "encoder.layer.*.output.LayerNorm.*": To("layers.*.norm.*"),
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

TOWER = under("visual_encoder.", "vit.", VIT)
READER = under("text_encoder.", "text.", {**TEXT, **BIDIRECTIONAL})
SPEAKER = {
    **under("text_decoder.bert.", "text.", {**TEXT, **CAUSAL}),
    **under("text_decoder.cls.predictions.", "text.", WORD_HEAD),
}
TWINS: Rules = {
    **under("visual_encoder_m.", "twins.vit.", VIT),
    **under("text_encoder_m.", "twins.text.", {**TEXT, **BIDIRECTIONAL}),
    "vision_proj_m.*": To("twins.image_proj.*"),
    "text_proj_m.*": To("twins.text_proj.*"),
    "image_queue": To("twins.image_queue", turned=True),
    "text_queue": To("twins.text_queue", turned=True),
    "temp": To("temperature"),
}

NO_IMAGE = -100  # no image has this number, so an empty place in the queue is nobody's partner
START_TEMPERATURE = 0.07  # of a layout that compares by plain cosines

PRETRAIN = Layout(
    "official pretrain",
    {**TOWER, **READER, **SPEAKER, **HEADS, **TWINS, "queue_ptr": To("twins.pointer")},
    {"twins.id_queue": NO_IMAGE},
)
CAPTIONER = Layout("official captioner", {**TOWER, **SPEAKER})
ITM = Layout("official image-text matching", {**TOWER, **READER, **HEADS}, {"temperature": START_TEMPERATURE})
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
