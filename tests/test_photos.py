import json
import logging
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from impasto.learning import photos
from impasto.learning.photos import Batch, PhotoCrops, PhotoDataModule
from impasto.photo_folder import PhotoError, find_photos

SIZE = 16
workers_may_fork = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def paint(path: Path, colour: tuple[int, int, int] = (200, 100, 50), *, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def paint_many(folder: Path, count: int) -> list[Path]:
    """Photos of one colour each; the red value is the number."""
    return [paint(folder / f"{number:03}.png", (number, 0, 0)) for number in range(count)]


def break_(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not a picture")
    return path


def ramp(path: Path, *, height: int, width: int) -> Path:
    """A photo whose value tells the column."""
    pixels = np.broadcast_to(np.arange(width, dtype=np.uint8)[None, :, None], (height, width, 3))
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    return path


def is_flat(crop: Tensor) -> bool:
    return torch.equal(crop.amin((1, 2)), crop.amax((1, 2)))


def crops(files: Iterable[Path], **options: Any) -> PhotoCrops:
    return PhotoCrops(list(files), **{"size": SIZE, "seed": 0, **options})


def data_module(source: str = "folder", root: Path | None = None, **options: Any) -> PhotoDataModule:
    module = PhotoDataModule(source=source, root=root, **{"image_size": SIZE, "generated": 2, **options})
    module.setup("fit")
    return module


def broken_reason(path: Path) -> str:
    return f"expected an image file, got something else in {str(path)!r}: give a JPEG, PNG, WebP or TIFF"


def raises_whole(error: type[Exception], message: str) -> Any:
    return pytest.raises(error, match=f"^{re.escape(message)}$")


class TestSamples:
    def test_are_colour_photographs_that_are_installed_and_held_out_ones_are_others(self) -> None:
        files, held_out = photos.sample_photos()
        assert [path.name for path in files] == list(photos.SAMPLES)
        assert [path.name for path in held_out] == list(photos.HELD_OUT_SAMPLES)
        assert not set(files) & set(held_out)
        for path in files + held_out:
            with Image.open(path) as file:
                assert file.mode == "RGB"
                assert min(file.size) >= 300


class TestFolder:
    def test_needs_no_class_folders_and_finds_them_at_any_depth(self, tmp_path: Path) -> None:
        painted = {paint(tmp_path / name) for name in ("a.png", "one/b.jpg", "one/two/c.webp", "d.PNG")}
        (tmp_path / "notes.txt").write_text("no picture")
        files, held_out = photos.hold_out(find_photos(tmp_path), seed=0)
        assert {*files, *held_out} == painted

    @pytest.mark.parametrize(("count", "held"), [(2, 1), (9, 1), (25, 2), (79, 7), (80, 8), (5000, 8)])
    def test_a_tenth_is_held_out_and_at_most_eight(self, count: int, held: int) -> None:
        paths = [Path(f"{number}.jpg") for number in range(count)]
        files, held_out = photos.hold_out(paths, seed=0)
        assert len(held_out) == held
        assert sorted(files + held_out) == sorted(paths)

    def test_a_single_photo_serves_as_both(self) -> None:
        only = [Path("only.jpg")]
        assert photos.hold_out(only, seed=0) == (only, only)

    def test_which_are_held_out_depends_on_the_seed_alone(self) -> None:
        paths = [Path(f"{number}.jpg") for number in range(100)]
        assert photos.hold_out(paths, seed=1) == photos.hold_out(paths, seed=1)
        assert photos.hold_out(paths, seed=1) != photos.hold_out(paths, seed=2)

    def test_a_missing_folder_is_told(self, tmp_path: Path) -> None:
        root = tmp_path / "none"
        with raises_whole(
            FileNotFoundError, f"expected a folder of images, found none at {str(root)!r}: check the path"
        ):
            find_photos(root)

    def test_a_file_is_told(self, tmp_path: Path) -> None:
        root = paint(tmp_path / "a.png")
        with raises_whole(
            PhotoError, f"expected a folder of photos, got the file {str(root)!r}: name the folder it is in"
        ):
            find_photos(root)

    def test_a_folder_without_images_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("no picture")
        with raises_whole(
            PhotoError, f"expected photos in {str(tmp_path)!r}, found no image file: name another folder"
        ):
            find_photos(tmp_path)


class TestCoco:
    def names(self, root: Path) -> set[str]:
        return {str(path.relative_to(path.parents[1])) for path in photos.coco_photos(root)}

    def annotate(self, root: Path, text: str, *, split: str = "train2017") -> Path:
        path = root / "annotations" / f"instances_{split}.json"
        path.parent.mkdir()
        path.write_text(text)
        return path

    @pytest.mark.parametrize("split", ["train2017", "val2017", "train2014"])
    def test_any_of_its_photo_folders_is_found(self, tmp_path: Path, split: str) -> None:
        paint(tmp_path / split / "1.jpg")
        paint(tmp_path / "test2017" / "2.jpg")
        assert self.names(tmp_path) == {f"{split}/1.jpg"}

    def test_training_photos_come_before_those_for_validation(self, tmp_path: Path) -> None:
        paint(tmp_path / "val2017" / "1.jpg")
        paint(tmp_path / "train2017" / "2.jpg")
        assert self.names(tmp_path) == {"train2017/2.jpg"}

    @pytest.mark.parametrize("root", ["train2017", "train2017/", "."])
    def test_the_photo_folder_itself_may_be_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str
    ) -> None:
        for name in ("1.jpg", "2.jpg", "3.jpg"):
            paint(tmp_path / "train2017" / name)
        self.annotate(tmp_path, json.dumps({"images": [{"file_name": "1.jpg"}, {"file_name": "3.jpg"}]}))
        monkeypatch.chdir(tmp_path / "train2017" if root == "." else tmp_path)
        assert {path.name for path in photos.coco_photos(Path(root))} == {"1.jpg", "3.jpg"}

    def test_only_images_that_the_annotations_list_are_used(self, tmp_path: Path) -> None:
        for name in ("1.jpg", "2.jpg", "3.jpg"):
            paint(tmp_path / "train2017" / name)
        listed = [{"file_name": name, "height": 30} for name in ("1.jpg", "3.jpg", "not_here.jpg")]
        content = {"info": {"year": 2017}, "images": listed, "annotations": [{"segmentation": [[1.5, 2.5]]}]}
        self.annotate(tmp_path, json.dumps(content, indent=1) + "\n")
        assert self.names(tmp_path) == {"train2017/1.jpg", "train2017/3.jpg"}

    def test_annotations_of_another_folder_do_not_matter(self, tmp_path: Path) -> None:
        paint(tmp_path / "train2017" / "1.jpg")
        self.annotate(tmp_path, "broken", split="val2017")
        assert self.names(tmp_path) == {"train2017/1.jpg"}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "<html>}",
            "[1, 2]",
            '{"annotations": []}',
            '{"images": [{"id": 1}]}',
            '{"images": [3]}',
            '{"images": [{"file_name": "1.jpg"}], "annotations": [{"id": 1}, {"i',
            '{"images": [{"file_name": "1.jpg"}, {"file_na}',
        ],
    )
    def test_broken_annotations_are_told(self, tmp_path: Path, text: str) -> None:
        paint(tmp_path / "train2017" / "1.jpg")
        path = self.annotate(tmp_path, text)
        with raises_whole(
            PhotoError,
            f"expected COCO's annotations in {str(path)!r}, got something else or a part of them: "
            "fetch the file again, or move it away to train on every image",
        ):
            photos.coco_photos(tmp_path)

    def test_annotations_that_list_none_of_the_photos_are_told(self, tmp_path: Path) -> None:
        paint(tmp_path / "train2017" / "1.jpg")
        path = self.annotate(tmp_path, json.dumps({"images": [{"file_name": "8.jpg"}, {"file_name": "9.jpg"}]}))
        with raises_whole(
            PhotoError,
            f"expected in {str(tmp_path / 'train2017')!r} the images that {str(path)!r} lists, found none of its 2: "
            "fetch the photos again, or move the file away to train on every image",
        ):
            photos.coco_photos(tmp_path)

    def test_a_folder_that_is_not_cocos_is_told(self, tmp_path: Path) -> None:
        paint(tmp_path / "holidays" / "1.jpg")
        with raises_whole(
            PhotoError,
            f"expected one of train2017, train2014, val2017 in {str(tmp_path)!r}, found none: name COCO's folder with "
            "data.root=DIR, fetch it with scripts/download_coco.py, or use data=folder",
        ):
            photos.coco_photos(tmp_path)


class TestCrops:
    def test_are_bytes_of_the_training_size(self, tmp_path: Path) -> None:
        crop = crops(paint_many(tmp_path, 2))[5]
        assert crop.shape == (3, SIZE, SIZE)
        assert crop.dtype == torch.uint8

    def test_depend_on_the_seed_and_their_number_alone(self, tmp_path: Path) -> None:
        files = [ramp(tmp_path / f"{width}.png", height=70, width=width) for width in (60, 90, 200)]
        forwards = [crops(files)[number] for number in range(20)]
        dataset = crops(files)
        backwards = [dataset[number] for number in reversed(range(20))]
        assert torch.equal(torch.stack(forwards), torch.stack(backwards[::-1]))
        # One photo alone: its place in the round cannot tell the seeds apart.
        one, other = (torch.stack([crops(files[:1], seed=seed)[number] for number in range(5)]) for seed in (0, 1))
        assert not torch.equal(one, other)

    def test_show_every_photo_once_in_a_round_in_a_new_order_each_time(self, tmp_path: Path) -> None:
        dataset = crops(paint_many(tmp_path, 12))
        rounds = [[int(dataset[number][0, 0, 0]) for number in range(start, start + 12)] for start in (0, 12, 24)]
        assert all(sorted(order) == list(range(12)) for order in rounds)
        assert len({tuple(order) for order in rounds}) == 3

    def test_have_the_name_of_their_photo(self, tmp_path: Path) -> None:
        dataset = crops([*paint_many(tmp_path, 5), break_(tmp_path / "broken.png")])
        for number in range(20):
            assert dataset.name_of(number) == str(tmp_path / f"{int(dataset[number][0, 0, 0]):03}.png")
        green = [torch.full((3, 20, 20), 255, dtype=torch.uint8)]
        assert crops([], generated=green, generated_share=1.0).name_of(3) == "generated picture 0"

    def test_are_drawn_evenly_over_the_orders_of_size_up_to_three_times_the_training_size(self, tmp_path: Path) -> None:
        dataset = crops([ramp(tmp_path / "a.png", height=3 * SIZE, width=200)])
        # The outermost values are those of averaged columns, hence the rounding.
        values = [dataset[number].float() for number in range(600)]
        sides = np.array([float(crop.max() - crop.min()) * SIZE / (SIZE - 1) for crop in values])
        assert SIZE - 1.5 <= sides.min() <= SIZE + 1
        assert 3 * SIZE - 3 <= sides.max() <= 3 * SIZE + 1.5
        places = np.log(sides / SIZE) / np.log(3)  # 0 for the smallest, 1 for the largest
        assert np.quantile(places, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.07)

    def test_come_from_everywhere_and_half_of_them_are_mirrored(self, tmp_path: Path) -> None:
        dataset = crops([ramp(tmp_path / "a.png", height=90, width=200)])
        values = [dataset[number][0, 0].int() for number in range(400)]
        assert min(int(row.min()) for row in values) <= 3
        assert max(int(row.max()) for row in values) >= 196
        # Deviation of a fair coin over 400 throws: 0.025.
        assert np.mean([bool(row[0] > row[-1]) for row in values]) == pytest.approx(0.5, abs=0.1)

    def test_are_antialiased(self, tmp_path: Path) -> None:
        pixels = np.indices((48, 48)).sum(0) % 2 * 255
        path = tmp_path / "checks.png"
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        smooth = [crops([path], seed=seed)[0].float() for seed in range(20)]
        assert min(float(crop.std()) for crop in smooth) < 20  # the largest crops turn gray; picking pixels keeps 127

    @pytest.mark.parametrize("size", [(2, 2), (2, 200), (300, 2), (SIZE - 1, SIZE - 1), (2000, 9)])
    def test_of_small_and_of_long_photos_are_enlarged(self, tmp_path: Path, size: tuple[int, int]) -> None:
        dataset = crops([paint(tmp_path / "a.png", (200, 100, 50), size=size)])
        for number in range(5):
            assert dataset[number].flatten(1).float().mean(1).tolist() == [200, 100, 50]
            assert dataset[number].shape == (3, SIZE, SIZE)

    def test_are_small_at_first(self, tmp_path: Path) -> None:
        files = [ramp(tmp_path / f"{width}.png", height=20, width=width) for width in (30, 40)]
        mixed = crops(files, small_size=SIZE // 2, small_samples=5)
        small, large = crops(files, size=SIZE // 2), crops(files)
        for number in range(10):
            assert torch.equal(mixed[number], (small if number < 5 else large)[number])

    def test_are_of_more_than_one_colour_where_the_photo_is(self, tmp_path: Path) -> None:
        pixels = np.full((60, 60, 3), 255, np.uint8)
        pixels[20:40, 20:40] = 0
        Image.fromarray(pixels).save(tmp_path / "logo.png")
        dataset, image = crops([tmp_path / "logo.png"]), torch.from_numpy(pixels).permute(2, 0, 1)
        assert not any(is_flat(dataset[number]) for number in range(300))
        random = np.random.default_rng(0)
        assert any(is_flat(dataset._crop(image, random, SIZE)) for _ in range(300)), "it would happen"
        assert is_flat(crops([paint(tmp_path / "flat.png")])[0]), "there is no other"

    def test_of_a_pickled_dataset_are_the_same(self, tmp_path: Path) -> None:
        dataset = crops(paint_many(tmp_path, 5))
        # As they go to a loader worker where processes are not forked.
        copy, batch = pickle.loads(pickle.dumps((dataset, dataset.batch)))
        assert all(torch.equal(dataset[number], copy[number]) for number in range(10))
        assert batch.__self__ is copy, "or what the worker finds out were not told"

    def test_are_exposed_otherwise_by_the_share_asked_for(self, tmp_path: Path) -> None:
        files = [paint(tmp_path / "a.png", (200, 100, 50), size=(SIZE, SIZE))]
        dataset = crops(files, exposed_share=0.25)
        colours = np.array([dataset[number].flatten(1).float().mean(1).tolist() for number in range(400)])
        changed = colours[(colours != [200, 100, 50]).any(axis=1)]
        # Deviation of 400 throws: 0.022.
        assert len(changed) / 400 == pytest.approx(0.25, abs=0.08)
        assert changed[:, 2].min() == pytest.approx(50 / 2, abs=3)
        assert changed[:, 2].max() == pytest.approx(50 * 2**1.5, abs=12)
        assert changed[:, 0].max() == 255, "what is too bright is cut off"

    def test_of_nothing_are_an_error(self) -> None:
        with raises_whole(
            PhotoError,
            "expected photos or generated pictures to train on, got neither: "
            "raise data.generated, or lower data.generated_share",
        ):
            crops([])


class TestGeneratedShare:
    GREEN = torch.tensor([0, 255, 0], dtype=torch.uint8)[:, None, None].expand(3, 24, 24)

    def green_part(self, files: list[Path], *, share: float) -> float:
        dataset = crops(files, generated=[self.GREEN], generated_share=share)
        return float(np.mean([dataset[number][1, 0, 0] == 255 for number in range(200)]))

    def test_is_the_probability_of_a_generated_picture(self, tmp_path: Path) -> None:
        files = paint_many(tmp_path, 3)
        assert self.green_part(files, share=0) == 0
        assert self.green_part(files, share=1) == 1
        assert self.green_part(files, share=0.3) == pytest.approx(0.3, abs=0.1)

    def test_is_all_where_there_are_no_photos(self) -> None:
        assert self.green_part([], share=0.5) == 1

    def test_of_one_opens_no_photo(self, tmp_path: Path) -> None:
        assert self.green_part([tmp_path / "missing.png"], share=1) == 1


class TestMemory:
    def test_photos_are_decoded_once(self, tmp_path: Path) -> None:
        dataset = crops(files := paint_many(tmp_path, 3))
        before = [dataset[number] for number in range(6)]
        for path in files:
            path.unlink()
        assert torch.equal(torch.stack([dataset[number] for number in range(6)]), torch.stack(before))

    def test_photos_are_kept_no_larger_than_the_largest_crop(self, tmp_path: Path) -> None:
        path = paint(tmp_path / "a.png", size=(300, 150))
        dataset = crops([path], memory=3 * (3 * SIZE) * (6 * SIZE))
        before = dataset[0]
        path.unlink()
        assert torch.equal(dataset[0], before)

    def test_has_a_limit(self, tmp_path: Path) -> None:
        sizes = {"first.png": 20, "large.png": 40, "fits.png": 10, "over.png": 10}
        files = [paint(tmp_path / name, size=(side, side)) for name, side in sizes.items()]
        dataset = crops(files, memory=3 * 20**2 + 3 * 10**2)
        dataset.probe()
        for path in files:
            path.unlink()
        assert [dataset.is_sound(path) for path in files] == [True, False, True, False]


class TestBrokenPhotos:
    def test_are_replaced_and_told_once(self, tmp_path: Path) -> None:
        good, bad = paint_many(tmp_path, 4), break_(tmp_path / "bad.png")
        dataset = crops([*good, bad])
        dataset.probe()
        shown = {int(dataset[number][0, 0, 0]) for number in range(40)}
        assert shown == {0, 1, 2, 3}
        assert dataset.skipped == {bad: broken_reason(bad)}
        batch, news, _ = dataset.batch([dataset[0], dataset[1]])
        assert torch.equal(batch, torch.stack([dataset[0], dataset[1]]))
        assert news == {bad: broken_reason(bad)}
        assert dataset.take_news() == ({}, None)

    @workers_may_fork
    @pytest.mark.parametrize("workers", [0, 2])
    def test_are_counted_once_and_the_first_ones_named(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int
    ) -> None:
        paint_many(tmp_path, 40)
        for number in range(photos.NAMED + 3):
            break_(tmp_path / f"bad{number}.png")
        module = data_module(root=tmp_path, workers=workers, batch_size=8)
        batches = iter(module.train_dataloader())
        for _ in range(12):  # two rounds
            module.on_before_batch_transfer(next(batches), 0)
        bad = {f"bad{number}.png": broken_reason(tmp_path / f"bad{number}.png") for number in range(photos.NAMED + 3)}
        assert module.skipped == bad
        named = [f"skipped photo {i}: {reason}" for i, reason in enumerate(module.skipped.values(), start=1)]
        last = f"skipped more than {photos.NAMED} photos: they are named in the list alone"
        expected = [*named[: photos.NAMED], last]
        assert caplog.record_tuples == [("impasto.learning.photos", logging.WARNING, line) for line in expected]

    @workers_may_fork
    def test_that_are_most_are_one_line_of_a_loader_worker_too(self, tmp_path: Path) -> None:
        files = paint_many(tmp_path, 40)
        module = data_module(root=tmp_path, workers=1)
        module.crops.memory, module.crops._decoded = 0, {}
        for path in files:
            path.unlink()
        with pytest.raises(PhotoError, match=r"^\d+ of the first \d+ photos cannot be read \(expected an [^\n]+DIR$"):
            for _ in module.train_dataloader():
                pass

    def test_are_replaced_alike_in_any_order_of_reading(self, tmp_path: Path) -> None:
        files = [*paint_many(tmp_path, 8), *(break_(tmp_path / f"bad{number}.png") for number in range(3))]
        forwards, backwards = crops(files), crops(files)
        one = [forwards[number] for number in range(60)]
        other = [backwards[number] for number in reversed(range(60))]
        assert torch.equal(torch.stack(one), torch.stack(other[::-1]))

    def test_that_vanish_during_training_are_replaced(self, tmp_path: Path) -> None:
        files = paint_many(tmp_path, 4)
        dataset = crops(files, memory=0)
        dataset.probe()
        files[2].unlink()
        assert {int(dataset[number][0, 0, 0]) for number in range(40)} == {0, 1, 3}
        message = f"expected an image file, found nothing at {str(files[2])!r}: check the path"
        assert dataset.skipped == {files[2]: message}

    @pytest.mark.parametrize(("good", "bad"), [(1, 1), (8, 8), (10, 6), (90, 10)])
    def test_are_no_error_up_to_half(self, tmp_path: Path, good: int, bad: int) -> None:
        paths = [*paint_many(tmp_path, good), *(break_(tmp_path / f"bad{number}.png") for number in range(bad))]
        dataset = crops(paths)
        dataset.probe()
        assert len({int(dataset[number][0, 0, 0]) for number in range(400)}) == good

    @pytest.mark.parametrize(("good", "bad"), [(3, 7), (1, 2), (7, 9)])
    def test_that_are_most_are_an_error_before_training(self, tmp_path: Path, good: int, bad: int) -> None:
        broken = [break_(tmp_path / f"a{number}.png") for number in range(bad)]
        dataset = crops([*broken, *paint_many(tmp_path, good)])
        reasons = "; ".join(broken_reason(path) for path in broken[:3])
        with raises_whole(
            PhotoError,
            f"{bad} of the first {bad + good} photos cannot be read ({reasons}): "
            "repair the folder or name another one with data.root=DIR",
        ):
            dataset.probe()

    @pytest.mark.parametrize("count", [17, 31, 33, 100])
    def test_are_looked_for_among_all(self, tmp_path: Path, count: int) -> None:
        dataset = crops(paint_many(tmp_path, count))
        dataset.probe()
        read = [number for number, path in enumerate(dataset.files) if path in dataset.sound]
        assert len(read) == 16
        assert max(np.diff([*read, count])) <= -(-count // 16)

    def test_that_are_by_chance_most_of_the_first_few_are_no_error(self, tmp_path: Path) -> None:
        paths = [break_(tmp_path / f"a{number}.png") for number in range(12)]
        dataset = crops([*paths, *paint_many(tmp_path, 28)])
        for path in dataset.files[:20]:
            dataset.is_sound(path)
        assert len(dataset.skipped) == 12

    @pytest.mark.parametrize("count", [1, 2, 40])
    def test_that_are_all_are_an_error_at_set_up(self, tmp_path: Path, count: int) -> None:
        for number in range(count):
            break_(tmp_path / f"{number:02}.png")
        module = PhotoDataModule(source="folder", root=tmp_path, image_size=SIZE)
        tried = {1: 1, 2: 1, 40: 16}[count]
        with pytest.raises(
            PhotoError,
            match=rf"^{tried} of the first {tried} photos cannot be read \((expected an image file, got something else "
            r"in '[^']+': give a JPEG, PNG, WebP or TIFF(; )?){1,3}\): "
            r"repair the folder or name another one with data\.root=DIR$",
        ):
            module.setup("fit")

    def test_that_turn_up_during_training_are_an_error_once_they_are_most(self, tmp_path: Path) -> None:
        files = paint_many(tmp_path, 40)
        dataset = crops(files, memory=0)
        dataset.probe()
        for path in files:
            path.unlink()
        with pytest.raises(PhotoError, match=r"^\d+ of the first \d+ photos cannot be read \(expected an") as caught:
            list(map(dataset.__getitem__, range(100)))
        bad, tried = (int(number) for number in re.findall(r"\d+", str(caught.value))[:2])
        assert len(dataset.skipped) == bad
        surely_most = tried / 2 + (tried**0.5 if tried < 40 else 0)
        assert bad - 1 <= surely_most < bad  # one photo earlier it was not

    @pytest.mark.parametrize("held_out", [False, True])
    def test_of_which_none_is_left_are_an_error_each_time(self, tmp_path: Path, held_out: bool) -> None:
        only, other = paint_many(tmp_path, 2)
        dataset = crops([only], memory=0)
        assert dataset.is_sound(only)
        assert not held_out or dataset.is_sound(other)
        only.unlink()
        for number in range(2):
            with raises_whole(
                PhotoError,
                f"1 of the first {1 + held_out} photos cannot be read (expected an image file, found nothing at "
                f"{str(only)!r}: check the path): repair the folder or name another one with data.root=DIR",
            ):
                _ = dataset[number]


def test_the_samples_are_numbered_from_the_start_on(tmp_path: Path) -> None:
    paint_many(tmp_path, 2)
    numbers = iter(data_module(root=tmp_path, start=7).train_dataloader().sampler)
    assert [next(numbers) for _ in range(4)] == [7, 8, 9, 10]


def test_the_names_within_the_folder_and_those_of_a_step(tmp_path: Path) -> None:
    paint_many(tmp_path / "a", 12)
    module = data_module(root=tmp_path, batch_size=2)
    assert module.names() == [os.path.relpath(path, tmp_path) for path in module.crops.files]
    assert all(name.startswith("a/") for name in module.names())
    assert module.names_in_step(3) == [module.crops.name_of(number) for number in (4, 5)]
    assert data_module("samples").names() == list(photos.SAMPLES)


def first_batches(loader: DataLoader[Batch], count: int) -> Tensor:
    batches = iter(loader)
    return torch.stack([next(batches)[0] for _ in range(count)])


class TestTrainingBatches:
    def test_are_bytes_on_the_way_and_of_zero_to_one_on_the_device(self, tmp_path: Path) -> None:
        paint(tmp_path / "a.png", (255, 0, 51))
        module = data_module(root=tmp_path, batch_size=3)
        module.crops.exposed_share = 0
        batch = module.on_before_batch_transfer(next(iter(module.train_dataloader())), 0)
        assert batch.shape == (3, 3, SIZE, SIZE)
        assert batch.dtype == torch.uint8
        images = module.on_after_batch_transfer(batch, 0)
        assert images.dtype == torch.float32
        assert images.mean((0, 2, 3)).tolist() == pytest.approx([1, 0, 0.2])

    @workers_may_fork
    def test_are_the_same_for_any_number_of_workers(self, tmp_path: Path) -> None:
        for width in (60, 90, 200):
            ramp(tmp_path / f"{width}.png", height=70, width=width)
        alone, helped = (
            first_batches(data_module(root=tmp_path, batch_size=2, workers=workers).train_dataloader(), 5)
            for workers in (0, 2)
        )
        assert torch.equal(alone, helped)

    def test_are_small_for_the_first_steps_also_where_a_run_goes_on(self, tmp_path: Path) -> None:
        paint_many(tmp_path, 4)
        for start, sizes in ((0, [8, 8, SIZE]), (2, [8, SIZE, SIZE])):
            module = data_module(root=tmp_path, small_size=8, small_steps=2, batch_size=2, start=start)
            batches = iter(module.train_dataloader())
            assert [tuple(next(batches)[0].shape) for _ in range(3)] == [(2, 3, size, size) for size in sizes]

    def test_go_on_where_an_earlier_run_stopped(self, tmp_path: Path) -> None:
        for width in (60, 90, 200):
            ramp(tmp_path / f"{width}.png", height=70, width=width)
        whole = first_batches(data_module(root=tmp_path, batch_size=2).train_dataloader(), 5)
        rest = first_batches(data_module(root=tmp_path, batch_size=2, start=3 * 2).train_dataloader(), 2)
        assert torch.equal(whole[3:], rest)

    @workers_may_fork
    def test_outlive_a_ctrl_c_and_sigterm_in_a_worker(self, tmp_path: Path) -> None:
        paint_many(tmp_path, 3)
        before = set(multiprocessing.active_children())
        batches = iter(data_module(root=tmp_path, workers=1).train_dataloader())
        next(batches)
        (worker,) = set(multiprocessing.active_children()) - before
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
        worker.join(0.3)
        assert worker.is_alive()
        for _ in range(10):  # more than were prepared already
            assert next(batches)[0].shape == (4, 3, SIZE, SIZE)


class TestHeldOutPhotos:
    def test_are_validated_on_as_their_centres(self, tmp_path: Path) -> None:
        ramp(tmp_path / "a.png", height=SIZE, width=100)
        (batch,) = data_module(root=tmp_path).val_dataloader()
        assert batch[0, 0, 0].tolist() == list(range(42, 42 + SIZE))

    def test_are_never_trained_on(self, tmp_path: Path) -> None:
        paint_many(tmp_path, 20)
        module = data_module(root=tmp_path)
        held_out = torch.cat(list(module.val_dataloader()))
        module.crops.exposed_share = 0  # a photo is known by its gray here
        trained = {int(module.crops[number][0, 0, 0]) for number in range(60)}
        assert trained | set(held_out[:, 0, 0, 0].tolist()) == set(range(20))
        assert not trained & set(held_out[:, 0, 0, 0].tolist())

    def test_that_vanish_during_training_are_still_validated_on(self, tmp_path: Path) -> None:
        paint_many(tmp_path, 20)
        module = data_module(root=tmp_path)
        before = torch.cat(list(module.val_dataloader()))
        for path in module.held_out:
            path.unlink()
        after = torch.cat(list(module.val_dataloader()))
        assert torch.equal(after, before)

    def test_that_cannot_be_read_are_left_out(self, tmp_path: Path) -> None:
        paths = paint_many(tmp_path, 20)
        _, held_out = photos.hold_out(find_photos(tmp_path), seed=0)
        break_(held_out[0])
        module = data_module(root=tmp_path)
        assert module.held_out == held_out[1:]
        break_(held_out[1])
        module = data_module(root=tmp_path)
        assert len(module.held_out) == 1
        assert module.held_out[0] in set(paths) - set(held_out)

    @pytest.mark.parametrize(
        ("size", "shown"),
        [
            ((640, 480), (64, 48)),
            ((48, 480), (48, 144)),  # the middle of a high one
            ((40, 30), (40, 30)),
            ((5, 10), (16, 32)),
            ((2, 2), (16, 16)),
            ((3000, 2), (48, 16)),
        ],
    )
    def test_are_previewed_at_a_size_that_can_be_painted(
        self, tmp_path: Path, size: tuple[int, int], shown: tuple[int, int]
    ) -> None:
        paint(tmp_path / "a.png", (255, 0, 51), size=size)
        (preview,) = data_module(root=tmp_path).held_out_photos(48)
        assert preview.shape == (1, 3, shown[1], shown[0])
        assert preview.mean((0, 2, 3)).tolist() == pytest.approx([1, 0, 0.2])


class TestDescription:
    def test_tells_the_photographs_the_generated_pictures_and_the_held_out_ones(self) -> None:
        line = "6 photographs of scikit-image and 2 generated pictures; 2 photographs held out"
        assert data_module("samples").describe() == line
        line = "6 photographs of scikit-image; 2 photographs held out"
        assert data_module("samples", generated_share=0.0).describe() == line
        assert data_module("samples", generated=0).describe() == line
        line = "1 generated picture; 2 photographs held out"
        assert data_module("samples", generated=1, generated_share=1.0).describe() == line

    def test_names_the_folder_and_mixes_in_nothing(self, tmp_path: Path) -> None:
        paint_many(tmp_path, 12)
        line = f"11 photographs in {tmp_path}; 1 photograph held out"
        assert data_module(root=tmp_path).describe() == line

    def test_says_that_a_single_photo_serves_twice(self, tmp_path: Path) -> None:
        paint(tmp_path / "a.png")
        line = f"1 photograph in {tmp_path}; none could be held out, so validation uses one of them"
        assert data_module(root=tmp_path).describe() == line


class TestPhotoDataModule:
    def test_finds_coco(self, tmp_path: Path) -> None:
        paint(tmp_path / "val2017" / "1.jpg")
        assert data_module("coco", tmp_path).held_out == [tmp_path / "val2017" / "1.jpg"]

    def test_finds_its_photos_once(self, tmp_path: Path) -> None:
        paint(tmp_path / "a.png")
        module = data_module(root=tmp_path)
        before = module.crops
        module.setup("validate")
        assert module.crops is before

    def test_generates_pictures_a_little_larger_than_the_training_size(self) -> None:
        assert [tuple(each.shape) for each in data_module("samples").crops.generated] == [(3, 24, 24)] * 2

    @pytest.mark.parametrize("source", ["folder", "coco"])
    def test_without_a_folder_is_an_error(self, source: str) -> None:
        with raises_whole(
            PhotoError, f"expected a folder for the source {source!r}, got none: name it with data.root=DIR"
        ):
            data_module(source)

    def test_with_nothing_to_train_on_is_an_error(self) -> None:
        with raises_whole(
            PhotoError,
            "expected photos or generated pictures to train on, got neither: "
            "raise data.generated, or lower data.generated_share",
        ):
            data_module("samples", generated=0, generated_share=1.0)


def test_a_process_ends_though_a_worker_is_left(tmp_path: Path) -> None:
    paint(tmp_path / "a.png")
    code = """
import sys
from pathlib import Path
from impasto.learning.photos import PhotoDataModule
module = PhotoDataModule(
    source="folder", root=Path(sys.argv[1]), image_size=32, batch_size=1, seed=0,
    workers=1, generated=0, generated_share=0.0,
)
module.setup("fit")
batches = iter(module.train_dataloader())
next(batches)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], timeout=100, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
