"""The training step as one would first write it: the yardstick that `bench` holds ours against. Same losses, more work.

Four K/V projections (true pairs, two kinds of wrong ones, language), separate ITM passes, all positions of all layers,
texts padded to a fixed length, the twins moved one parameter at a time. Attention is made eager by the caller.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from capfilt.models.blip import Blip, Objective
from capfilt.objectives.contrastive import TEMPERATURE, contrastive, positives_on_diagonal, soft_targets
from capfilt.objectives.language import next_labels, next_token
from capfilt.pair import Batch

PADDED = 30


def padded(batch: Batch, length: int = PADDED) -> Batch:
    """The batch with its texts padded to a fixed length."""
    ids, mask = (F.pad(x, (0, length - x.shape[1])) for x in (batch.ids, batch.mask))
    return Batch(batch.pixels, ids, mask, batch.image_id, batch.text_id)


def plain_losses(
    model: Blip, batch: Batch, objective: Objective, alpha: float, drawn: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """The three losses of pre-training on a padded batch; `drawn` replays the wrong image and text of each row."""
    assert model.twins is not None
    twins, special, t = model.twins, model.config.special, model.temperature
    with torch.no_grad():
        t.clamp_(*TEMPERATURE)
    image = model.vit(batch.pixels)
    image_vec = F.normalize(model.image_proj(image[:, 0]), dim=-1)
    text_vec = F.normalize(model.text_proj(model.text.read(batch.ids, batch.mask)[:, 0]), dim=-1)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, twin in twins.named_parameters():
            twin.data = twin.data * objective.momentum + own[name].data * (1 - objective.momentum)
        image_m = F.normalize(twins.image_proj(twins.vit(batch.pixels)[:, 0]), dim=-1)
        text_m = F.normalize(twins.text_proj(twins.text.read(batch.ids, batch.mask)[:, 0]), dim=-1)
        images = torch.cat((image_m, twins.image_queue.clone()))
        texts = torch.cat((text_m, twins.text_queue.clone()))
        right = positives_on_diagonal(len(batch), len(images), device=images.device)
        targets = soft_targets(image_m @ texts.T / t, right, alpha), soft_targets(text_m @ images.T / t, right, alpha)
    itc = contrastive(image_vec @ texts.T / t, text_vec @ images.T / t, *targets)

    asking = batch.ids.clone()
    asking[:, 0] = special.enc
    wrong_image = torch.stack([image[int(i)] for i in drawn[0]])
    wrong_ids = torch.stack([asking[int(i)] for i in drawn[1]])
    wrong_mask = torch.stack([batch.mask[int(i)] for i in drawn[1]])
    right_states = model.text.look(asking, batch.mask, model.text.project(image))[:, 0]
    ids, mask = torch.cat((asking, wrong_ids)), torch.cat((batch.mask, wrong_mask))
    wrong_states = model.text.look(ids, mask, model.text.project(torch.cat((wrong_image, image))))[:, 0]
    labels = torch.cat((torch.ones(len(batch)), torch.zeros(2 * len(batch)))).long().to(image.device)
    itm = F.cross_entropy(model.match_head(torch.cat((right_states, wrong_states))), labels)

    saying = batch.ids.clone()
    saying[:, 0] = special.dec
    logits = model.text.word_logits(model.text.speak(saying, batch.mask, model.text.project(image)))[:, :-1]
    lm = next_token(logits.flatten(0, 1), next_labels(batch.ids, batch.mask).flatten(), objective.smoothing)
    with torch.no_grad():
        slots = (twins.pointer + torch.arange(len(batch), device=image.device)) % len(twins.image_queue)
        twins.image_queue[slots], twins.text_queue[slots] = image_m.float(), text_m.float()
        twins.pointer.copy_((twins.pointer + len(batch)) % len(twins.image_queue))
    return {"itc": itc, "itm": itm, "lm": lm}
