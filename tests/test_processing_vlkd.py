import copy
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessorPil

from modeling_vlkd import VLKDProcessor
from modeling_vlkd.processing_vlkd import MAX_ASPECT_RATIO, open_image, to_rgb


def test_prompts_are_the_papers(processor: VLKDProcessor):
    assert processor.caption_prompts(2, num_masks=3) == ["A picture of<mask><mask><mask>."] * 2
    assert processor.question_prompts([" is it red? "], num_masks=1) == ["is it red? Answer:<mask>."]


def test_each_mask_becomes_one_token(processor: VLKDProcessor):
    [ids] = processor(text=processor.question_prompts(["is it red?"], num_masks=2))["input_ids"]
    assert ids.count(processor.tokenizer.mask_token_id) == 2


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("what is it? Answer: blue.", "blue"),
        ("what is it? Answer:blue", "blue"),
        ("Answer: is this an Answer: yes .", "yes"),
        ("blue.", "blue"),
        ("what is it? Answer:", ""),
        ("Answer: 3.5", "3.5"),
    ],
)
def test_answer_is_what_follows_the_last_mark(processor: VLKDProcessor, text: str, answer: str):
    assert processor.extract_answers([text]) == [answer]


def test_caption_loses_prompt_and_period_only(processor: VLKDProcessor):
    texts = ["A picture of a red circle.", " a red circle", "A picture of"]
    assert processor.extract_captions(texts) == ["a red circle", "a red circle", ""]


def test_defaults_travel_with_the_checkpoint(processor: VLKDProcessor, tmp_path: Path):
    VLKDProcessor(
        processor.image_processor, processor.tokenizer, num_caption_masks=4, num_question_masks=1
    ).save_pretrained(tmp_path)
    loaded = VLKDProcessor.from_pretrained(tmp_path)
    assert loaded.caption_prompts() == ["A picture of<mask><mask><mask><mask>."]
    assert loaded.question_prompts(["why?"]) == ["why? Answer:<mask>."]


def test_call_joins_pictures_and_texts(processor: VLKDProcessor):
    pictures = [Image.new("RGB", (50, 40), "red"), Image.new("RGB", (20, 90), "blue")]
    batch = processor(images=pictures, text=["short", "a longer text"], return_tensors="pt")
    assert set(batch) == {"pixel_values", "input_ids", "attention_mask"}
    size = processor.image_processor.crop_size["height"]
    assert batch["pixel_values"].shape == (2, 3, size, size)
    assert batch["attention_mask"][0].sum() < batch["attention_mask"][1].sum() == batch["input_ids"].shape[1]


# A color in each mode that image files may have: mode, value, and the color that a viewer shows.
SEEN_RED = [
    ("RGB", (255, 0, 0), (255, 0, 0)),
    ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
    ("RGBA", (255, 0, 0, 0), (255, 255, 255)),  # transparent: the page shows through
    ("LA", (0, 0), (255, 255, 255)),
    ("L", 77, (77, 77, 77)),
    ("1", 1, (255, 255, 255)),
    ("CMYK", (0, 255, 255, 0), (254, 0, 0)),
    ("I;16", 65535, (255, 255, 255)),
    ("I;16", 257 * 77, (77, 77, 77)),  # 16 bits are scaled, not cut off at 255
    ("F", 1.0, (255, 255, 255)),
    ("P", 0, (0, 0, 0)),
]


@pytest.mark.parametrize(("mode", "value", "shown"), SEEN_RED, ids=lambda value: str(value))
def test_every_mode_is_shown_as_a_viewer_shows_it(mode: str, value, shown: tuple[int, int, int]):
    pixel = to_rgb(Image.new(mode, (4, 4), value)).getpixel((0, 0))
    assert np.abs(np.subtract(pixel, shown)).max() <= 1


def test_palette_with_a_transparent_color_is_laid_on_white(tmp_path: Path):
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([255, 0, 0] + [0] * 765)
    picture.save(tmp_path / "palette.png", transparency=0)
    assert open_image(tmp_path / "palette.png").getpixel((0, 0)) == (255, 255, 255)


def test_rotation_of_the_camera_is_applied(tmp_path: Path):
    picture = Image.new("RGB", (4, 8), "red")
    exif = picture.getexif()
    exif[0x0112] = 6  # rotated by 90 degrees
    picture.save(tmp_path / "rotated.jpg", exif=exif)
    assert open_image(tmp_path / "rotated.jpg").size == (8, 4)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (20_000, 20), (2, 20_000)], ids=str)
def test_any_size_becomes_one_square(processor: VLKDProcessor, size: tuple[int, int]):
    pixels = processor(images=Image.new("RGB", size, "green"), return_tensors="pt")["pixel_values"]
    assert pixels.shape[-2:] == (processor.image_processor.crop_size["height"],) * 2
    assert torch.isfinite(pixels).all()


def test_cutting_a_strip_leaves_the_central_square(processor: VLKDProcessor):
    clip_style = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    strip = np.zeros((32, 32 * (MAX_ASPECT_RATIO + 8), 3), np.uint8)
    strip[:, strip.shape[1] // 2 - 32 : strip.shape[1] // 2 + 32] = 200
    seer = VLKDProcessor(clip_style, processor.tokenizer)
    cut = seer(images=Image.fromarray(strip), return_tensors="pt")["pixel_values"]
    square = seer(images=Image.new("RGB", (32, 32), (200, 200, 200)), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(cut, square, atol=0.02, rtol=0)


def test_loads_by_auto_classes(tiny_checkpoint: Path):
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

    assert isinstance(AutoProcessor.from_pretrained(tiny_checkpoint), VLKDProcessor)
    assert AutoTokenizer.from_pretrained(tiny_checkpoint).mask_token == "<mask>"
    assert AutoImageProcessor.from_pretrained(tiny_checkpoint).crop_size


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p(), "images, text or both"),
        (lambda p: p(images=[Image.new("RGB", (4, 4))] * 2, text=["a", "b", "c"]), "2 images and 3 texts"),
        (lambda p: p(images=[]), "at least one image"),
        (lambda p: p(images=[3]), "got int"),
        (lambda p: p(text=""), "Text 0 is ''"),
        (lambda p: p(text=["a", "  "]), "Text 1 is '  '"),
        (lambda p: p(text=["why " * 500]), "tokens, the model reads at most"),
        (lambda p: p.question_prompts("why?"), "pass ['why?']"),
        (lambda p: p.question_prompts(["why?", ""]), "Question 1 is ''"),
        (lambda p: p.question_prompts([None]), "Question 0 is None"),
        (lambda p: p.caption_prompts(1, num_masks=0), "num_masks=0"),
    ],
)
def test_wrong_input_is_named(processor: VLKDProcessor, call, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(processor)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda array: array,
        lambda array: array.transpose(2, 0, 1),
        torch.from_numpy,
        lambda array: [torch.from_numpy(array).permute(2, 0, 1)],
        lambda array: np.stack([array]),
        lambda array: [[array]],  # as chats pass it
    ],
    ids=["channels last", "channels first", "tensor", "list of tensors", "stack", "list of one for each text"],
)
def test_arrays_and_tensors_are_taken_as_pictures(processor: VLKDProcessor, arrange):
    array = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    expected = processor(images=Image.fromarray(array), return_tensors="pt")["pixel_values"]
    assert torch.equal(processor(images=arrange(array), return_tensors="pt")["pixel_values"], expected)


def test_arrays_of_other_shapes_are_refused(processor: VLKDProcessor):
    for shape in ((8, 8), (2, 2, 8, 8, 3)):
        with pytest.raises(ValueError, match=re.escape("Expected an image of (height, width, channels), got one of")):
            processor(images=np.zeros(shape, dtype=np.uint8))


def test_settings_of_the_image_processor_reach_it(processor: VLKDProcessor):
    array = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    expected = processor.image_processor(array, do_normalize=False, return_tensors="pt")["pixel_values"]
    settings = {"text": "why?", "return_tensors": "pt", "padding": "max_length", "max_length": 20}
    flat = processor(images=array, do_normalize=False, **settings)
    nested = processor(images=array, images_kwargs={"do_normalize": False}, **settings)
    for inputs in (flat, nested):
        assert torch.equal(inputs["pixel_values"], expected)
        assert inputs["input_ids"].shape == (1, 20)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"max_lenght": 4}, "'max_lenght'; did you mean 'max_length'?"),
        ({"do_centre_crop": False}, "'do_centre_crop'; did you mean 'do_center_crop'?"),
        ({"qwertz": 1}, "'qwertz'; see its documentation."),
        ({"images_kwargs": {"do_rescal": False}}, "'do_rescal'"),
    ],
)
def test_misspelled_settings_are_named(processor: VLKDProcessor, settings: dict, hint: str):
    with pytest.raises(TypeError, match=re.escape(f"unexpected keyword argument {hint}")):
        processor(images=Image.new("RGB", (4, 4)), text="why?", **settings)


def test_file_urls_are_opened(processor: VLKDProcessor, tmp_path: Path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 9, 3), dtype=np.uint8))
    picture.save(tmp_path / "a b.png")
    assert open_image((tmp_path / "a b.png").as_uri()).tobytes() == picture.tobytes()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_image((tmp_path / "c.png").as_uri())


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.png", "https://", "http://[a.png", "data:image/png;base64,???"])
def test_urls_that_cannot_be_reached_are_named(url: str):
    with pytest.raises(ValueError, match=re.escape(f"Image {url} cannot be read (fetching it failed: ")):
        open_image(url, timeout=5)


def test_a_tokenizer_without_a_limit_gets_the_models(clip_folder: Path, bart_folder: Path, tmp_path: Path):
    shutil.copytree(bart_folder, tmp_path / "bart")
    settings = tmp_path / "bart" / "tokenizer_config.json"
    settings.write_text(json.dumps({k: v for k, v in json.loads(settings.read_text()).items() if "max_len" not in k}))
    assert AutoTokenizer.from_pretrained(tmp_path / "bart").model_max_length > 10**9
    processor = VLKDProcessor.from_vision_text_pretrained(clip_folder, tmp_path / "bart")
    with pytest.raises(ValueError, match="tokens, the model reads at most 64;"):
        processor(text="why " * 500)


def test_fillings_match_their_prompts(processor: VLKDProcessor):
    filled = processor.filled_captions(["a red  box", "A picture of a box.", "what a box!"])
    assert filled == ["A picture of a red box.", "A picture of a box.", "A picture of what a box!"]
    questions, answers = [" what color is it? "], [" red "]
    assert processor.filled_questions(questions, answers) == ["what color is it? Answer: red."]
    assert processor.extract_captions(filled)[0] == "a red box"
    assert processor.extract_answers(processor.filled_questions(questions, answers)) == ["red"]


def test_folders_of_older_versions_load(tiny_checkpoint: Path, tmp_path: Path):
    """`force_prefix` was once a setting of the processor; now it is in the generation config."""
    shutil.copytree(tiny_checkpoint, tmp_path / "old")
    settings = tmp_path / "old" / "processor_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"force_prefix": True}))
    assert VLKDProcessor.from_pretrained(tmp_path / "old").num_caption_masks == 3


def test_what_a_tokenizer_was_saved_with_is_no_setting(processor: VLKDProcessor, tmp_path: Path, recwarn):
    """A tokenizer that cut texts in training saves that setting, but it must not cut later texts."""
    cutting = copy.deepcopy(processor)
    cutting.tokenizer(["why?"], truncation=True, max_length=4, padding="max_length")
    cutting.save_pretrained(tmp_path)
    loaded = VLKDProcessor.from_pretrained(tmp_path)
    assert "max_length" in loaded.tokenizer.init_kwargs
    assert loaded(text="what color is the shape?") == processor(text="what color is the shape?")
    assert not [warning for warning in recwarn if "max_length" in str(warning.message)]


def test_a_long_text_may_be_cut_on_request(processor: VLKDProcessor):
    [ids] = processor(text=["why " * 500], truncation=True)["input_ids"]
    assert len(ids) == processor.tokenizer.model_max_length


def test_two_images_for_one_text_are_refused(processor):
    picture = Image.new("RGB", (4, 4))
    with pytest.raises(ValueError, match=r"Expected one image per text, got 2 for one text\."):
        processor(images=[[picture, picture]], text=["what is new?"])
