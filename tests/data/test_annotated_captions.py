"""COCO, Flickr30k and NoCaps: small files in the official forms, read; results written as their servers want them."""

import json

import pytest

from capfilt.data.annotated import coco, flickr30k, nocaps
from capfilt.data.annotations import Captioned
from capfilt.errors import ConfigError, DataError
from capfilt.inputs.texts import clean_caption


def put(path, value):
    path.write_text(json.dumps(value), "utf-8")
    return path


def karpathy(number, split, *raw, coco_id=None):
    """One image as Karpathy's files have it; COCO's have two keys more."""
    sentences = [
        {"tokens": text.lower().split(), "raw": text, "imgid": number, "sentid": number * 5 + k}
        for k, text in enumerate(raw)
    ]
    row = {"sentids": [s["sentid"] for s in sentences], "imgid": number, "sentences": sentences, "split": split}
    if coco_id is None:
        return row | {"filename": f"{number}.jpg"}
    return row | {"filepath": "val2014", "filename": f"COCO_val2014_{coco_id:012d}.jpg", "cocoid": coco_id}


def test_karpathy_coco(tmp_path):
    rows = [
        karpathy(0, "test", "A man.", "Man on a bike ", coco_id=391895),
        karpathy(1, "restval", "A dog.", coco_id=9),
        karpathy(2, "train", "A cat.", coco_id=5),
        karpathy(3, "val", "Two cats.", coco_id=7),
    ]
    path = put(tmp_path / "dataset_coco.json", {"images": rows, "dataset": "coco"})
    image = "/coco/val2014/COCO_val2014_000000391895.jpg"
    assert coco.read_karpathy(path, "/coco", "test") == [Captioned(image, ("A man.", "Man on a bike "), 391895)]
    assert [r.image_id for r in coco.read_karpathy(path, "/coco", "train")] == [9, 5]  # restval is trained on
    assert [r.image_id for r in coco.read_karpathy(path, "/coco", "restval")] == [9]
    assert [r.image_id for r in coco.read_karpathy(path, "/coco", "val")] == [7]
    with pytest.raises(ConfigError, match="split 'dev': choose one of train, restval, val, test"):
        coco.read_karpathy(path, "/coco", "dev")


def test_karpathy_flickr30k_and_rows_that_cannot_be_used(tmp_path):
    rows = [karpathy(0, "train", "One."), karpathy(1, "extra", "Two."), karpathy(2, "train")]
    path = put(tmp_path / "dataset_flickr30k.json", {"images": rows, "dataset": "flickr30k"})
    with pytest.warns(UserWarning, match=r"2 of 3 rows left out: split 'extra' \(1\), no sentence \(1\)"):
        assert flickr30k.read_karpathy(path, "/f", "train") == [Captioned("/f/0.jpg", ("One.",), 0)]
    path = put(tmp_path / "one.json", {"images": rows[:1]})
    with pytest.raises(DataError, match="none of 1 rows can be used: none is of the split asked for"):
        flickr30k.read_karpathy(path, "/f", "val")


def test_lists_of_blip(tmp_path):
    train = [
        {"caption": "A dog.", "image": "val2014/COCO_val2014_000000000005.jpg", "image_id": "coco_5"},
        {"caption": "B", "image": "train2014/COCO_train2014_000000000009.jpg", "image_id": "coco_9"},
        {"caption": "A second dog", "image": "val2014/COCO_val2014_000000000005.jpg", "image_id": "coco_5"},
    ]
    records = coco.read_list(put(tmp_path / "coco_karpathy_train.json", train), "/c")
    assert records == [
        Captioned("/c/val2014/COCO_val2014_000000000005.jpg", ("A dog.", "A second dog"), "coco_5"),
        Captioned("/c/train2014/COCO_train2014_000000000009.jpg", ("B",), "coco_9"),
    ]
    test = [{"image": "val2014/COCO_val2014_000000391895.jpg", "caption": ["A man.", "A bike."]}]
    records = coco.read_list(put(tmp_path / "coco_karpathy_test.json", test), "/c")
    assert records == [Captioned("/c/val2014/COCO_val2014_000000391895.jpg", ("A man.", "A bike."), 391895)]
    flickr = [{"image": "flickr30k-images/1007129816.jpg", "caption": ["The man.", "A hat."]}]
    assert flickr30k.read_list(put(tmp_path / "flickr30k_test.json", flickr), "/f") == [
        Captioned("/f/flickr30k-images/1007129816.jpg", ("The man.", "A hat."), 1007129816)
    ]


def test_golden_numbers_of_training_images(shared, tmp_path):
    case = json.loads((shared / "golden/blip/08_preprocess/datasets.json").read_text("utf-8"))["coco_train"]
    records = coco.read_list(put(tmp_path / "train.json", case["annotation"]), "/c")
    number = {caption: index for index, record in enumerate(records) for caption in record.captions}
    assert [number[row["caption"]] for row in case["annotation"]] == case["idx"]
    written = ["a picture of " + clean_caption(row["caption"]) for row in case["annotation"]]
    assert written == case["captions"]


def test_references_and_results(tmp_path):
    gt = {
        "annotations": [
            {"image_id": 7, "caption": "a", "id": 0},
            {"image_id": 3, "caption": "b", "id": 1},
            {"image_id": 7, "caption": "c", "id": 2},
        ],
        "images": [{"id": 7}, {"id": 3}],
    }
    path = put(tmp_path / "coco_karpathy_val_gt.json", gt)
    assert coco.read_references(path) == {7: ("a", "c"), 3: ("b",)}
    with pytest.raises(DataError, match="no list 'annotations'"):
        coco.read_references(put(tmp_path / "x.json", {"images": []}))


def test_tokens_of_flickr30k(tmp_path):
    path = tmp_path / "results_20130124.token"
    lines = ["1000092795.jpg#0\tTwo young guys .", "10002456.jpg#0\tMen # work", "1000092795.jpg#1\tTwo men .", "odd"]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    with pytest.warns(UserWarning, match="1 of 4 rows left out"):
        records = flickr30k.read_tokens(path, "/f")
    assert records == [
        Captioned("/f/1000092795.jpg", ("Two young guys .", "Two men ."), "1000092795"),
        Captioned("/f/10002456.jpg", ("Men # work",), "10002456"),
    ]


def test_nocaps(tmp_path):
    image = {
        "license": 0,
        "open_images_id": "0013ea2087020901",
        "coco_url": "https://example.org/0013ea2087020901.jpg",
        "height": 1024,
        "width": 732,
        "id": 0,
        "file_name": "0013ea2087020901.jpg",
        "date_captured": "2018-11-06 11:04:33",
    }
    other = image | {"id": 1, "file_name": "0014.jpg", "domain": "out-domain"}
    notes = [
        {"image_id": 0, "caption": "A baby.", "id": 0},
        {"image_id": 1, "caption": "A fish.", "id": 1},
        {"image_id": 0, "caption": "A child.", "id": 2},
        {"image_id": 8, "caption": "Nothing.", "id": 3},
    ]
    val = {"licenses": [], "info": {}, "images": [image | {"domain": "in-domain"}, other], "annotations": notes}
    with pytest.warns(UserWarning, match="captions of 1 images left out"):
        records = nocaps.read_official(put(tmp_path / "nocaps_val_4500_captions.json", val), "/n/val")
    assert records == [
        Captioned("/n/val/0013ea2087020901.jpg", ("A baby.", "A child."), 0, "in-domain"),
        Captioned("/n/val/0014.jpg", ("A fish.",), 1, "out-domain"),
    ]
    info = put(tmp_path / "nocaps_test_image_info.json", {"licenses": [], "info": {}, "images": [image]})
    assert nocaps.read_official(info, "/n") == [Captioned("/n/0013ea2087020901.jpg", (), 0)]
    rows = put(tmp_path / "nocaps_val.json", [{"img_id": 4, "image": "val/0013ea2087020901.jpg"}])
    assert nocaps.read_list(rows, "/n") == [Captioned("/n/val/0013ea2087020901.jpg", (), 4)]
