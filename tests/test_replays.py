"""What a GPU replays is what it would have computed; what cannot be replayed is computed as it is."""

import copy
import logging

import pytest
import torch
from torch import Tensor

from impasto.learning.replays import Replays
from tests.test_module import make_module

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def photos(seed: int, *, size: int = 32) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_where_nothing_can_be_recorded_all_is_computed_and_one_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    replays, weight = Replays(), torch.ones(2)
    with caplog.at_level(logging.WARNING):
        found = [replays(lambda x: x * weight, torch.full((2,), float(number)), uses=[weight]) for number in range(5)]
    assert [each.tolist() for each in found] == [[number, number] for number in range(5)]
    (record,) = caplog.records
    assert record.getMessage().startswith("steps are slower: the GPU cannot replay them (")


def test_a_copy_records_anew() -> None:
    replays = Replays()
    replays(lambda: None, uses=[])
    assert not copy.deepcopy(replays)._recordings


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("micro_batch_size", [None, 1])
@pytest.mark.parametrize("is_half", [False, True])
def test_a_step_is_replayed_with_new_photos_and_the_weights_as_they_are(
    is_half: bool, micro_batch_size: int | None
) -> None:
    module = make_module(clip=0.5, micro_batch_size=micro_batch_size).cuda()
    module.judge_to(module.device)
    for seed in range(6):
        batch = photos(seed, size=32 if seed != 4 else 48).cuda()
        with torch.autocast("cuda", torch.bfloat16, enabled=is_half, cache_enabled=False):
            replayed, expected = module.learn_from(batch), module._learn_from(batch)
        torch.testing.assert_close(replayed.terms.total, expected.terms.total, rtol=1e-4, atol=0)
        torch.testing.assert_close(replayed.norm, expected.norm, rtol=1e-2, atol=1e-5)
        torch.testing.assert_close(list(replayed.gradients), list(expected.gradients), rtol=0.02, atol=1e-4)
        module.hand_out(replayed)
        with torch.no_grad():
            for weight in module.weights:
                weight.mul_(1.01)
    assert [recording is not None for recording in module._replays._recordings.values()] == [True, False]


@pytest.mark.gpu
@on_gpu
def test_weights_that_have_moved_in_memory_are_recorded_anew() -> None:
    replays = Replays()
    weight, other, x = (torch.full((2,), value, device="cuda") for value in (2.0, 3.0, 1.0))
    for _ in range(3):
        assert replays(lambda x: x * weight, x, uses=[weight]).tolist() == [2, 2]
    weight = other
    for _ in range(3):
        assert replays(lambda x: x * weight, x, uses=[weight]).tolist() == [3, 3]


@pytest.mark.gpu
@on_gpu
def test_what_asks_the_gpu_for_a_number_cannot_be_recorded_and_is_computed(caplog: pytest.LogCaptureFixture) -> None:
    replays, x = Replays(), torch.ones(2, device="cuda")
    for number in range(4):
        assert replays(lambda x: x * x.sum().item(), x + number, uses=[]).tolist() == [2 * (1 + number) ** 2] * 2
    assert len(caplog.records) == 1
