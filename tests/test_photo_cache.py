"""Decoded photos kept on disk: the samples stay the same, and nothing that happens to the folder stops a training."""

import multiprocessing
import os
import re
import shutil
import time
from collections.abc import Callable
from itertools import islice
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from impasto.learning import photo_cache
from impasto.learning.photo_cache import PhotoCache, open_cache
from impasto.learning.photos import LARGEST_CROP, PhotoCrops, PhotoDataModule

SIZE = 16
workers_may_fork = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Photos that are decoded to half their size, shrunk, left as they are, and enlarged in the crops."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    sizes = {"a.jpg": (230, 200), "b.jpg": (64, 90), "c.png": (70, 60), "d.png": (40, 30), "sub/e.jpg": (12, 9)}
    for number, (name, (width, height)) in enumerate(sizes.items()):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def crops(root: Path, cache: Path | None = None, *, size: int = SIZE, **options: Any) -> PhotoCrops:
    opened = open_cache(cache, photos=root, at_least=LARGEST_CROP * size) if cache is not None else None
    return PhotoCrops(files_of(root), size=size, seed=0, cache=opened, **options)


def samples(dataset: PhotoCrops) -> Tensor:
    return torch.stack([dataset[number] for number in range(20)])


def contents(cache: Path) -> list[Path]:
    return sorted(cache.glob("??/[!.]*.pixels"))


def garble(path: Path) -> None:
    """Make a file unreadable, but of the same size and time of change: who reads it, notices."""
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def kept_of(root: Path, kept: Path, photo: Path) -> Tensor | None:
    return PhotoCache(kept, photos=root, at_least=LARGEST_CROP * SIZE).read(photo)


def begin(run: Callable[..., None], *arguments: object) -> ForkProcess:
    """Run a function in a process of its own, which forgets what this one holds in memory of the photos."""
    process = multiprocessing.get_context("fork").Process(target=run, args=arguments)
    process.start()
    return process


def show(root: Path, kept: Path, plain: Tensor) -> None:
    torch.set_num_threads(1)  # the threads of the process that was forked are not here
    assert torch.equal(samples(crops(root, kept)), plain)


def fill(root: Path, kept: Path) -> None:
    torch.set_num_threads(1)
    dataset = crops(root, kept)
    for path in files_of(root):
        dataset.is_sound(path)


def whole(message: str) -> str:
    return f"^{re.escape(message)}$"


class TestSamples:
    def test_are_the_same_as_without_and_in_a_second_run(self, root: Path, kept: Path) -> None:
        plain = samples(crops(root))
        assert torch.equal(samples(crops(root, kept)), plain)
        assert len(contents(kept)) == 5
        assert torch.equal(samples(crops(root, kept)), plain)

    @workers_may_fork
    @pytest.mark.parametrize("workers", [0, 2])
    def test_of_loader_workers_too_which_fill_it_together(self, root: Path, kept: Path, workers: int) -> None:
        def batches(cache: Path | None) -> Tensor:
            module = PhotoDataModule(
                source="folder", root=root, cache=cache, image_size=SIZE, batch_size=2, workers=workers
            )
            module.setup("fit")
            return torch.stack([batch[0] for batch in islice(module.train_dataloader(), 10)])

        assert torch.equal(batches(kept), batches(None))
        assert len(contents(kept)) == 5

    @workers_may_fork
    def test_of_several_trainings_that_begin_at_once(self, root: Path, kept: Path) -> None:
        plain = samples(crops(root))
        started = [begin(show, root, kept, plain) for _ in range(4)]
        for process in started:
            process.join(200)
        assert [process.exitcode for process in started] == [0] * 4
        assert len(contents(kept)) == 5

    def test_may_be_changed_without_changing_what_is_kept(self, root: Path, kept: Path) -> None:
        plain = samples(crops(root, kept))
        cache = open_cache(kept, photos=root, at_least=LARGEST_CROP * SIZE)
        assert cache is not None
        pixels = cache.read(root / "d.png")
        assert pixels is not None
        pixels.zero_()
        assert torch.equal(samples(crops(root, kept)), plain)

    def test_are_cut_from_photos_that_are_decoded_once(self, root: Path, kept: Path, tmp_path: Path) -> None:
        plain = samples(crops(root, kept))
        for path in files_of(root):
            garble(path)
        assert torch.equal(samples(crops(root, kept)), plain)
        moved = root.rename(tmp_path / "moved"), kept.rename(tmp_path / "moved too")
        assert torch.equal(samples(crops(*moved)), plain)

    def test_of_another_size_have_photos_of_their_own(self, root: Path, kept: Path) -> None:
        plain = {size: samples(crops(root, size=size)) for size in (SIZE, 8)}
        for size in plain:
            samples(crops(root, kept, size=size))
        assert len(contents(kept)) == 10
        for path in files_of(root):
            garble(path)
        for size, expected in plain.items():
            assert torch.equal(samples(crops(root, kept, size=size)), expected)


class TestPhotos:
    def test_that_change_are_decoded_anew(self, root: Path, kept: Path) -> None:
        samples(crops(root, kept))
        for path in files_of(root):
            with Image.open(path) as file:
                before, picture = path.stat(), file.transpose(Image.Transpose.ROTATE_90)
            picture.save(path)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        assert torch.equal(samples(crops(root, kept)), samples(crops(root)))
        assert len(contents(kept)) == 5

    def test_that_change_while_they_are_decoded_are_not_taken_for_the_new_ones(self, root: Path, kept: Path) -> None:
        cache = open_cache(kept, photos=root, at_least=LARGEST_CROP * SIZE)
        assert cache is not None
        path = root / "d.png"
        before = photo_cache.state_of(path)
        os.utime(path, ns=(1, 1))
        assert cache.keep(path, torch.zeros(3, 30, 40, dtype=torch.uint8), of=before)
        assert cache.read(path) is None

    def test_that_are_gone_or_damaged_are_skipped_for_the_same_reasons(self, root: Path, kept: Path) -> None:
        files = files_of(root)
        samples(crops(root, kept))
        files[0].unlink()
        files[1].write_bytes(files[1].read_bytes()[:-50])
        skipped = []
        for cache in (None, PhotoCache(kept, photos=root, at_least=LARGEST_CROP * SIZE)):
            dataset = PhotoCrops(files, size=SIZE, seed=0, cache=cache)
            samples(dataset)
            skipped.append(dataset.skipped)
        assert skipped[0] == skipped[1]
        assert skipped[0].keys() == set(files[:2])


class TestDamage:
    @pytest.mark.parametrize("end", [0, 1, 39, 40, 41, 1000, -1])
    def test_of_files_that_were_cut_off_is_repaired(self, root: Path, kept: Path, end: int) -> None:
        plain = samples(crops(root, kept))
        before = [path.read_bytes() for path in contents(kept)]
        for path, content in zip(contents(kept), before, strict=True):
            path.write_bytes(content[:end])
        assert torch.equal(samples(crops(root, kept)), plain)
        assert [path.read_bytes() for path in contents(kept)] == before

    def test_of_other_bytes_in_their_place_is_repaired(self, root: Path, kept: Path) -> None:
        plain = samples(crops(root, kept))
        for path in contents(kept):
            path.write_bytes(bytes(path.stat().st_size) + b"more")
        assert torch.equal(samples(crops(root, kept)), plain)

    @workers_may_fork
    def test_of_a_kill_in_the_midst_leaves_nothing_that_is_half_done(self, root: Path, kept: Path) -> None:
        for number in range(80):
            pixels = np.random.default_rng(number).integers(0, 256, (48, 48, 3), np.uint8)
            Image.fromarray(pixels).save(root / f"{number}.png")
        plain = torch.stack([crops(root)[number] for number in range(85)])
        process = begin(fill, root, kept)
        while len(contents(kept)) < 15:
            assert process.is_alive()
            time.sleep(0.01)
        process.kill()
        process.join()
        assert len(contents(kept)) < 85, "or it was over before the kill"
        for path in files_of(root):
            if kept_of(root, kept, path) is not None:
                garble(path)
        dataset = crops(root, kept)
        assert torch.equal(torch.stack([dataset[number] for number in range(85)]), plain)
        assert dataset.skipped == {}

    def test_of_a_kill_is_tidied_up_but_not_what_another_is_writing(self, root: Path, kept: Path) -> None:
        samples(crops(root, kept))
        folder = contents(kept)[0].parent
        old, new = folder / ".0123456789abcdef.pixels", folder / ".fedcba9876543210.pixels"
        for path in (old, new):
            path.write_bytes(b"half")
        an_hour_ago = time.time() - 3601
        os.utime(old, (an_hour_ago, an_hour_ago))
        crops(root, kept)
        assert (old.exists(), new.exists()) == (False, True)
        assert len(contents(kept)) == 5


class TestOtherFolders:
    def test_of_other_photos_are_not_used_and_one_line_says_so(
        self, root: Path, kept: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = tmp_path / "other"
        other.mkdir()
        Image.new("RGB", (40, 30)).save(other / "a.jpg")
        samples(crops(other, kept))
        module = PhotoDataModule(source="folder", root=root, cache=kept, image_size=SIZE)
        module.setup("fit")
        samples(module.crops)
        assert len(contents(kept)) == 1
        assert module.describe().endswith("1 photograph held out")
        (line,) = caplog.messages
        assert line == (
            f"expected decoded photos of {str(root)!r} ({photo_cache.MADE_WITH}) in {str(kept)!r}, got those of "
            f"{str(other)!r} ({photo_cache.MADE_WITH}): they are not used, and photos are decoded again whenever "
            "they do not fit in memory; choose another folder with data.cache=DIR, or remove this one"
        )

    def test_of_another_version_are_not_used(self, root: Path, kept: Path, caplog: pytest.LogCaptureFixture) -> None:
        samples(crops(root, kept))
        marker = kept / "photo_cache.txt"
        marker.write_text(marker.read_text().replace("Pillow ", "Pillow 1"))
        assert open_cache(kept, photos=root, at_least=1) is None
        (line,) = caplog.messages
        assert f"got those of {str(root)!r} ({photo_cache.MADE_WITH.replace('Pillow ', 'Pillow 1')})" in line

    def test_with_something_else_in_them_are_an_error(self, root: Path, kept: Path) -> None:
        kept.mkdir()
        for name, content in {"notes.txt": "mine", "photo_cache.txt": "mine"}.items():
            (kept / name).write_text(content)
            with pytest.raises(
                ValueError,
                match=whole(
                    f"expected a new folder or one of decoded photos, got something else at {str(kept)!r}: "
                    "choose another with data.cache=DIR"
                ),
            ):
                open_cache(kept, photos=root, at_least=1)
            assert (kept / name).read_text() == content
            (kept / name).unlink()

    def test_that_cannot_be_made_are_an_error(self, root: Path) -> None:
        for place, problem in {
            root / "a.jpg": f"a new folder or one of decoded photos, got something else at {str(root / 'a.jpg')!r}",
            root / "a.jpg" / "kept": f"a folder to keep decoded photos in, got {str(root / 'a.jpg/kept')!r} "
            "(Not a directory)",
        }.items():
            with pytest.raises(ValueError, match=whole(f"expected {problem}: choose another with data.cache=DIR")):
                open_cache(place, photos=root, at_least=1)

    def test_left_by_a_run_that_was_killed_in_its_first_moment_are_taken(self, root: Path, kept: Path) -> None:
        kept.mkdir()
        (kept / ".0123456789abcdef.txt").write_text("")
        assert open_cache(kept, photos=root, at_least=1) is not None


@workers_may_fork
@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_that_cannot_be_written_any_more_is_told_once(
    root: Path, kept: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    module = PhotoDataModule(source="folder", root=root, cache=kept, image_size=SIZE, batch_size=2, workers=workers)
    module.setup("fit")
    for number in range(256):  # each worker finds it out by itself
        shutil.rmtree(kept / f"{number:02x}", ignore_errors=True)
        (kept / f"{number:02x}").write_text("a file where a folder should be")
    assert module.describe().endswith(f"; decoded ones kept in {kept}")
    batches = [module.on_before_batch_transfer(batch, 0) for batch in islice(module.train_dataloader(), 8)]
    plain = PhotoDataModule(source="folder", root=root, image_size=SIZE, batch_size=2)
    plain.setup("fit")
    assert torch.equal(torch.stack(batches), torch.stack([each[0] for each in islice(plain.train_dataloader(), 8)]))
    (line,) = caplog.messages
    assert line == (
        f"decoded photos are no longer written into {str(kept)!r} (File exists): "
        "those not in it are decoded again whenever they do not fit in memory"
    )


def test_photos_that_cannot_be_kept_on_disk_are_kept_in_memory(root: Path, kept: Path) -> None:
    dataset = crops(root, kept)
    assert dataset.cache is not None
    dataset.cache.spare = 2**60
    plain = samples(dataset)
    for path in files_of(root):
        garble(path)
    assert torch.equal(samples(dataset), plain)
    assert contents(kept) == []
