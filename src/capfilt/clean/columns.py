"""The columns of a cleaning run's tables: one row an input row, in the order of the source, in shards of equal places.

| stage | says | hangs on |
|---|---|---|
| `rows` | what was read, and what was measured of the image without a model | the source |
| `scores` | what the captioner wrote and the filter found | `rows`, the rules, both models |
| `decisions` | what becomes of the row and why: a view, made anew in seconds | all of it, and a policy |
"""

import pyarrow as pa

TEXTS = pa.list_(pa.string())
NUMBERS = pa.list_(pa.float32())

INTAKE = pa.schema(
    [
        ("id", pa.string()),  # 32 hex digits of a hash of the key: stable over runs, machines and moved folders
        ("key", pa.string()),  # unique within the source, as a person would name the row
        ("source", pa.string()),  # where it comes from: the row's own `source` column, else the file it was read from
        ("texts", TEXTS),  # web texts, none for a photo without
        ("text_flags", TEXTS),  # what was odd about them (`inputs.texts.plain_text`)
        ("licence", pa.string()),
        ("meta", pa.string()),  # JSON of every other column
        ("ref", pa.string()),  # where the image lies (`data.refs.Ref` as JSON), null where there is none
        ("failed", pa.string()),  # reason code where the row cannot be used, else null
        ("error", pa.string()),  # the line that goes with it
    ]
)
MEASURED = pa.schema(
    [
        ("sha256", pa.string()),  # of the encoded bytes
        ("bytes", pa.int64()),
        ("format", pa.string()),
        ("width", pa.int32()),  # px, as stored
        ("height", pa.int32()),
        ("frames", pa.int32()),
        ("notes", TEXTS),  # `inputs.images.ImageInfo.notes`
        ("looks", pa.uint64()),  # perceptual hash; null where the image could not be decoded
        ("spread", pa.float32()),  # standard deviation of its levels, 0 to 127, in the colour where it is largest
    ]
)
ROWS = pa.schema([*INTAKE, *MEASURED])
SCORES = pa.schema(
    [
        ("id", pa.string()),
        ("itm_web", NUMBERS),  # of each of `texts`: probability of a match
        ("itc_web", NUMBERS),  # cosine
        ("synthetic", TEXTS),  # candidates as they were written
        ("logp", NUMBERS),  # of each candidate: mean log-probability of its tokens
        ("itm_synthetic", NUMBERS),
        ("itc_synthetic", NUMBERS),
        ("extra", pa.string()),  # JSON of what scorers said (`clean.scorers`), by name; null without any
        ("failed", pa.string()),  # reason code where the image could not be worked on after all
        ("error", pa.string()),
    ]
)
FLAGS = pa.schema(
    [
        ("id", pa.string()),
        (
            "rule",
            pa.string(),
        ),  # that the row breaks (`too_small`, `duplicate`, ...), null where it breaks none
        ("told", pa.string()),  # that with its numbers, in words
        ("group", pa.string()),  # id of the row that stands for its duplicates, null where it has none
    ]
)
DECISIONS = pa.schema(
    [
        ("id", pa.string()),
        ("key", pa.string()),
        ("source", pa.string()),
        ("decision", pa.string()),  # keep, replace, drop or failed
        ("reason", pa.string()),
        ("text", pa.string()),  # the text that stands for the row: web, synthetic or a person's; null where none does
        ("texts", TEXTS),  # every text that is kept, the one above first
        ("web_text", pa.string()),  # the best of the row's own
        ("synthetic_text", pa.string()),  # the best candidate
        ("itm_web", pa.float32()),
        ("itm_synthetic", pa.float32()),
        ("itc_web", pa.float32()),
        ("itc_synthetic", pa.float32()),
        ("score_web", pa.float32()),  # what the policy compares
        ("score_synthetic", pa.float32()),
    ]
)
SCHEMAS = {"rows": ROWS, "scores": SCORES}
