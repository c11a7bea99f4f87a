import numpy as np
import pytest
from PIL import Image

from capfilt.inputs.augment import OPS, AugmentConfig, augment, crop, distort, random_box

OFF = AugmentConfig(crop_min=1.0, flip=False, randaugment=False)


def noise(height=40, width=56, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_seed_alone_decides():
    image = Image.fromarray(noise())
    views = [augment(image, 32, AugmentConfig(), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(views[0], views[1])
    assert (views[0] != views[2]).any()
    assert views[0].shape == (32, 32, 3) and views[0].dtype == np.uint8
    np.testing.assert_array_equal(views[0], augment(np.asarray(image), 32, AugmentConfig(), np.random.default_rng(1)))


def test_switched_off_it_is_a_crop_of_nearly_everything():
    square = Image.fromarray(noise(48, 48))
    boxes = {random_box(48, 48, 1.0, np.random.default_rng(seed)) for seed in range(50)}
    assert (0, 0, 48, 48) in boxes  # only a square of the whole area fits, after ten misses it is the whole
    assert augment(square, 48, OFF, np.random.default_rng(0)).shape == (48, 48, 3)


def test_boxes_stay_inside_and_keep_area_and_ratio():
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(500):
        top, left, height, width = random_box(160, 120, 0.5, rng)
        assert 0 <= top <= 120 - height and 0 <= left <= 160 - width
        assert 0.72 <= width / height <= 1.37
        areas.append(height * width / (160 * 120))
    assert min(areas) > 0.48 and max(areas) <= 1.0 and max(areas) - min(areas) > 0.4


@pytest.mark.parametrize(
    ("size", "box"), [((400, 10), (0, 193, 10, 13)), ((10, 400), (193, 0, 13, 10)), ((1, 1), (0, 0, 1, 1))]
)
def test_odd_shapes_fall_back_to_the_middle(size, box):
    assert random_box(*size, 1.0, np.random.default_rng(0)) == box


def test_flip_happens_half_of_the_time():
    image = Image.fromarray(np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2))
    config = AugmentConfig(crop_min=1.0, flip=True, randaugment=False)
    views = [augment(image, 64, config, np.random.default_rng(seed)) for seed in range(200)]
    flipped = sum(int(view[32, 2, 0]) > int(view[32, -2, 0]) for view in views)
    assert 70 < flipped < 130


def test_neutral_ops_change_nothing_and_all_ops_keep_the_shape():
    pixels = noise()
    for op in OPS:
        out = distort(pixels, op, 0.15)
        assert out.shape == pixels.shape and out.dtype == np.uint8
        if op in ("identity", "brightness", "sharpness"):
            np.testing.assert_array_equal(out, pixels)


def test_translate_by_hand():
    pixels = noise()
    right = distort(pixels, "translate_x", -5.0)
    np.testing.assert_array_equal(right[:, 5:], pixels[:, :-5])
    assert (right[:, :5] == 128).all()
    up = distort(pixels, "translate_y", 5.0)
    np.testing.assert_array_equal(up[:-5], pixels[5:])
    assert (up[-5:] == 128).all()


def test_rotate_by_a_right_angle_by_hand():
    pixels = noise(33, 33)
    turned = distort(pixels, "rotate", 90.0)  # about (16.5, 16.5), so one row leaves the frame
    np.testing.assert_array_equal(turned[1:], np.rot90(pixels)[:-1])


def test_autocontrast_stretches_a_channel_without_black():
    pixels = np.clip(noise(), 60, 200)
    out = distort(pixels, "autocontrast")
    assert out.min((0, 1)).tolist() == [0, 0, 0] and out.max((0, 1)).tolist() == [255, 255, 255]


def test_the_originals_autocontrast_turns_a_channel_without_black_white():
    pixels = np.clip(noise(), 60, 200)
    pixels[0, 0, 0], pixels[..., 2] = 0, 90
    out, right = distort(pixels, "autocontrast", faithful=True), distort(pixels, "autocontrast")
    np.testing.assert_array_equal(out[..., [0, 2]], right[..., [0, 2]])  # one with a true black, one of a single value
    assert (out[..., 1] == 255).all() and (right[..., 1] != 255).any()


def test_the_original_distorts_a_view_when_it_is_asked_to():
    image = np.clip(noise(), 60, 200)
    views = [
        [augment(image, 32, AugmentConfig(faithful=faithful), np.random.default_rng(seed)) for seed in range(40)]
        for faithful in (False, True)
    ]
    white = [(other == 255).all() and (view != other).any() for view, other in zip(*views, strict=True)]
    assert any(white) and not all(white)


def test_a_tall_crop_shrinks_its_width_first_whatever_the_library_would_do():
    tall = Image.fromarray(noise(113, 40))
    by_hand = tall.resize((32, 113), Image.Resampling.BICUBIC).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(crop(tall, (0, 0, 113, 40), 32), np.asarray(by_hand))
