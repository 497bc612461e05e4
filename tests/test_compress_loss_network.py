"""The parts of the program that compresses the loss network, on small random features."""

from pathlib import Path

import pytest
import torch
from torch import nn

from impasto.learning.losses import content_loss, gram_matrix, style_loss
from scripts.compress_loss_network import (
    Crops,
    Fit,
    Lessons,
    Mover,
    calibration,
    choose_channels,
    measure_moments,
    new_student,
    parse_arguments,
    refit,
    save_state,
    schedule,
    solve_ridge,
    start,
    take_patches,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_calibrated_features_give_the_content_loss_of_the_original_channels() -> None:
    readout, ours, others = random(10, 4), random(2, 4, 5, 6, seed=1), random(2, 4, 5, 6, seed=2)
    expected = content_loss(expand(readout, ours), expand(readout, others))
    matrix = calibration(readout)
    torch.testing.assert_close(content_loss(expand(matrix, ours), expand(matrix, others)), expected)


def test_calibrated_features_give_the_summed_style_loss_of_the_original_channels() -> None:
    readout, ours, others = random(10, 4), random(2, 4, 5, 6, seed=1), random(2, 4, 5, 6, seed=2)
    expected = style_loss(gram_matrix(expand(readout, ours)), gram_matrix(expand(readout, others)))
    matrix = calibration(readout)
    got = style_loss(gram_matrix(expand(matrix, ours)), gram_matrix(expand(matrix, others)))
    torch.testing.assert_close(got, expected)


def expand(matrix: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    return torch.einsum("dc,nchw->ndhw", matrix, features)


def test_the_chosen_channels_explain_the_others() -> None:
    independent = random(2, 3, 8, 8)
    copies = torch.cat([0.1 * independent, independent, 0.5 * independent], dim=1)
    moments = torch.einsum("nchw,ndhw->cd", copies, copies).double()
    chosen = choose_channels(moments, 3)
    assert sorted(index % 3 for index in chosen) == [0, 1, 2]


def test_the_moments_of_a_layer_are_summed_over_all_images_and_positions() -> None:
    network, images = new_student(), random(9, 3, 16, 16).sigmoid()
    features = network(images, ["relu1_1", "pool1"])
    moments = measure_moments(network, ["relu1_1", "pool1"], images)
    for name, value in features.items():
        flat = value.double().transpose(0, 1).flatten(1)
        torch.testing.assert_close(moments[name], flat @ flat.T, rtol=1e-4, atol=1e-2)


def test_refitting_finds_the_convolution_that_made_the_targets() -> None:
    weight, bias = random(2, 3, 3, 3, seed=3), random(2, seed=4)
    inputs = random(4, 3, 12, 12)
    targets = torch.nn.functional.conv2d(inputs, weight, bias, padding=1)
    found = refit(iter([inputs]), iter([targets]), generator=torch.Generator().manual_seed(0), positions=2000)
    # the ridge draws the solution a little towards zero
    torch.testing.assert_close(found[0], weight, atol=5e-3, rtol=0)
    torch.testing.assert_close(found[1], bias, atol=5e-3, rtol=0)


def test_the_ridge_is_relative_to_the_scale_of_each_unknown() -> None:
    left = torch.diag(torch.tensor([1e6, 1e-6], dtype=torch.double))
    solution = solve_ridge(left, torch.ones(2, 1, dtype=torch.double))
    torch.testing.assert_close(solution[:, 0], torch.tensor([1e-6, 1e6], dtype=torch.double), rtol=1e-3, atol=0)


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    assert schedule(0, 1000) < 0.03
    assert schedule(50, 1000) > 0.99
    assert abs(schedule(500, 1000) - 0.5) < 1e-6
    assert schedule(1000, 1000) < 1e-6


def test_patches_are_those_of_unfold() -> None:
    features, chosen = random(2, 3, 5, 7), torch.tensor([0, 6, 17, 34, 17])
    everywhere = torch.nn.functional.unfold(features, 3, padding=1)
    assert torch.equal(take_patches(features, chosen), everywhere[..., chosen])


def test_lessons_depend_on_the_step_alone_and_come_back() -> None:
    photos = [torch.randint(256, (3, 40, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)]
    crops = Crops(photos, [], [], size=16)
    lessons, again = (Lessons(new_student(), crops, count=1, seed=3) for _ in range(2))
    images = [lessons.at(step)[0] for step in range(12)]
    assert torch.equal(again.at(9)[0], images[9])
    assert len({float(image.sum()) for image in images}) == 3, "one new batch every four steps"


def test_a_work_folder_belongs_to_one_command(tmp_path: Path) -> None:
    words = ["--weights", "a.pth", "--photos", "photos", "--work", str(tmp_path)]
    arguments, other = (parse_arguments([*words, *more]) for more in ([], ["--rate", "0.5"]))
    fit = Fit(new_student(), nn.ParameterDict())
    save_state(fit, Mover(fit), step=0, arguments=arguments)
    crops = Crops([], [], [], size=16)
    with pytest.raises(ValueError, match=r"^expected the arguments of the run in .*, got .*'rate': '0.5'.* --work$"):
        start(new_student(), crops, arguments=other)
