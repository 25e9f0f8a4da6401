import datasets
import pytest
import torch
from PIL import Image
from tiny_training import CAPTIONS, DIM, IMAGE_SIZE, tiny_clip, tiny_model, tiny_processor
from transformers import (
    CLIPModel,
)

from modeling_vlkd.trainers import VLKDDistillationCollator, feature_cache
from modeling_vlkd.trainers.feature_cache import compute_image_rows, embed_captions, fingerprint, prepare_pairs
from modeling_vlkd.trainers.text_teacher import TextTeacher


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def clip_folder(processor, tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("clip"), processor)


@pytest.fixture
def dataset():
    pictures = []
    for index, color in enumerate(["red", "blue", "green", "teal", "black"]):
        picture = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), color)
        picture.putpixel((0, index), (255, 255, 255))  # not its own mirror image
        pictures.append(picture)
    captions = [[CAPTIONS[0], CAPTIONS[1]], *([caption] for caption in CAPTIONS[2:6])]
    data = datasets.Dataset.from_dict(
        {"image": pictures, "captions": captions},
        features=datasets.Features({"image": datasets.Image(), "captions": datasets.List(datasets.Value("string"))}),
    )
    return data.cast_column("image", datasets.Image(decode=False))


def test_rows_are_those_of_the_model_and_mirror_images_a_second_view(dataset, processor, tmp_path):
    model = tiny_model(processor)
    rows = compute_image_rows(dataset, model, processor, tmp_path, flip=True).with_format("torch")["image_embeds"][:]
    pictures = [feature_cache.open_row(dataset, row) for row in range(5)]
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = torch.stack([model.eval().get_image_rows(each) for each in (pixels, pixels.flip(-1))], dim=1)
    torch.testing.assert_close(rows.view(5, 2, 1, DIM), expected)
    assert not torch.allclose(expected[:, 0], expected[:, 1])


def test_features_are_computed_once_and_anew_for_another_tower(dataset, processor, tmp_path, monkeypatch):
    model = tiny_model(processor)
    first = compute_image_rows(dataset, model, processor, tmp_path)["image_embeds"][:]
    calls = []
    compute = feature_cache.open_row
    monkeypatch.setattr(feature_cache, "open_row", lambda *args: calls.append(args[1]) or compute(*args))
    assert compute_image_rows(dataset, model, processor, tmp_path)["image_embeds"][:] == first
    assert not calls
    compute_image_rows(dataset, tiny_model(processor, seed=1), processor, tmp_path)
    assert calls == [0, 1, 2, 3, 4]


def test_an_interrupted_computation_goes_on_where_it_stopped(dataset, processor, tmp_path, monkeypatch):
    model, calls, compute = tiny_model(processor), [], feature_cache.open_row
    monkeypatch.setattr(feature_cache, "SHARD", 2)

    def stops_at_row_3(data, row):
        calls.append(row)
        if row == 3 and calls.count(3) == 1:
            raise KeyboardInterrupt
        return compute(data, row)

    monkeypatch.setattr(feature_cache, "open_row", stops_at_row_3)
    with pytest.raises(KeyboardInterrupt):
        compute_image_rows(dataset, model, processor, tmp_path)
    assert len(compute_image_rows(dataset, model, processor, tmp_path)) == 5
    assert calls == [0, 1, 2, 3, 2, 3, 4]


def test_the_fingerprint_follows_weights_and_words(processor):
    model, other = tiny_model(processor), tiny_model(processor, seed=1)
    assert fingerprint("a", model) == fingerprint("a", tiny_model(processor))
    assert len({fingerprint("a", model), fingerprint("b", model), fingerprint("a", other), fingerprint("a")}) == 4


def test_the_teacher_embeds_captions_as_its_clip_does(clip_folder, processor, tmp_path):
    teacher = TextTeacher(clip_folder)
    clip = CLIPModel.from_pretrained(clip_folder)
    embeds = embed_captions(CAPTIONS[:3], teacher, tmp_path).with_format("torch")["text_teacher_embeds"][:]
    for caption, embed in zip(CAPTIONS, embeds):
        with torch.no_grad():
            expected = clip.get_text_features(**processor.tokenizer([caption], return_tensors="pt")).pooler_output[0]
        torch.testing.assert_close(embed, expected)
    assert teacher.embed(["red " * 50]).shape == (1, DIM)  # too long for CLIP: cut


def test_pairs_are_one_caption_each_with_its_picture(dataset, processor, clip_folder, tmp_path):
    pairs = prepare_pairs(dataset, tiny_model(processor), processor, TextTeacher(clip_folder), tmp_path, flip=True)
    assert len(pairs) == 6
    assert [pair["caption"] for pair in pairs.__getitems__(range(6))] == CAPTIONS[:6]
    first, second, third = pairs.__getitems__([0, 1, 2])
    assert first["image_embeds"].shape == (2, 1, DIM)
    assert (first["image_embeds"] == second["image_embeds"]).all()
    assert (first["image_embeds"] != third["image_embeds"]).any()
    batch = VLKDDistillationCollator(processor)([first, second, third])
    assert batch["image_embeds"].shape == (3, 1, DIM)
    assert batch["text_teacher_embeds"].shape == (3, DIM)


def test_pairs_may_keep_their_pictures_and_do_without_a_teacher(dataset, processor, tmp_path):
    pairs = prepare_pairs(dataset, tiny_model(processor), processor, None, tmp_path, keep_pixels=True)
    batch = VLKDDistillationCollator(processor)(pairs.__getitems__([0, 5]))
    assert batch["pixel_values"].shape == (2, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert "text_teacher_embeds" not in batch
    assert not list(tmp_path.iterdir())


def test_kept_pictures_are_mirrored_as_their_rows_would_be(dataset, processor, tmp_path):
    model = tiny_model(processor).eval()
    batches = []
    for keep_pixels in (False, True):
        pairs = prepare_pairs(dataset, model, processor, None, tmp_path, flip=True, keep_pixels=keep_pixels)
        examples = [{**pairs[index % 6], "draw": index} for index in range(24)]
        batches.append(VLKDDistillationCollator(processor)(examples))
    with torch.no_grad():
        rows = model.get_image_rows(batches[1]["pixel_values"])
    torch.testing.assert_close(rows, batches[0]["image_embeds"])


def test_rows_of_a_tower_that_is_trained_are_not_kept(dataset, processor, tmp_path):
    model = tiny_model(processor)
    model.config.freeze_vision_tower = False
    with pytest.raises(ValueError, match=r"freeze_vision_tower=False.*keep_pixels"):
        prepare_pairs(dataset, model, processor, None, tmp_path)
    assert prepare_pairs(dataset, model, processor, None, tmp_path, keep_pixels=True)
