import subprocess
import sys

import numpy as np
import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from transformers import AutoImageProcessor

from modeling_vlkd.image_processing_vlkd import VLKDImageProcessor


def make_picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


# Heights of 32 to 39 at width 32 leave 0 to 7 rows to be cut: every remainder of the rounding.
@pytest.mark.parametrize("size", [*((32, height) for height in range(32, 40)), (35, 32), (100, 70), (20, 31)])
def test_pixels_equal_clips_own(size):
    processor = VLKDImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    expected = image_transform_v2(PreprocessCfg(size=32), is_train=False)(make_picture(*size)).numpy()
    pixels = processor(make_picture(*size))["pixel_values"][0]
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=1e-5)


def test_a_picture_smaller_than_the_crop_is_padded():
    processor = VLKDImageProcessor(do_resize=False, crop_size=32)
    assert processor(make_picture(20, 40))["pixel_values"][0].shape == (3, 32, 32)


def test_auto_class_finds_it_with_the_package(tmp_path):
    VLKDImageProcessor(size={"shortest_edge": 48}, crop_size=48).save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(loaded) is VLKDImageProcessor
    assert loaded.crop_size.height == 48


def test_auto_class_finds_it_without_the_package(tmp_path):
    VLKDImageProcessor(size={"shortest_edge": 48}, crop_size=48).save_pretrained(tmp_path / "saved")
    script = (
        "import sys; sys.modules['modeling_vlkd'] = None\n"
        "from transformers import AutoImageProcessor\n"
        f"processor = AutoImageProcessor.from_pretrained({str(tmp_path / 'saved')!r}, trust_remote_code=True)\n"
        "print(type(processor).__name__, processor.crop_size.height)\n"
    )
    environment = {"HF_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120
    )
    assert process.stdout.split() == ["VLKDImageProcessor", "48"], process.stderr
