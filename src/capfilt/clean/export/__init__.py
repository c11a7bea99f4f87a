"""A cleaning run, written for whoever trains or looks on.

| format | OUT | rows |
|---|---|---|
| `jsonl` `csv` | one file | all, in the order of their ids |
| `parquet` | shards with an Image struct, for Hugging Face datasets | those with a text |
| `webdataset` | tar shards: `id.jpg`, `id.txt`, `id.json` | those with a text |
| `imagefolder` | images and `metadata.jsonl` | those with a text |
| `sidecar` | a `.txt` for each key, in the tree that the keys make | those with a text |

Images are copied byte for byte; with `strip_gps` alone, coordinates within them are overwritten (`gps`).
"""

from capfilt.clean.export.folders import FORMATS as FOLDERS
from capfilt.clean.export.folders import export_folder
from capfilt.clean.export.rows import Choice
from capfilt.clean.export.tables import FORMATS as TABLES
from capfilt.clean.export.tables import export_table

FORMATS = (*TABLES, *FOLDERS)

__all__ = ["FOLDERS", "FORMATS", "TABLES", "Choice", "export_folder", "export_table"]
