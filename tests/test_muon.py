"""Muon turns the weights between features by orthogonalised momentum, and leaves the others to Adam."""

import copy

import pytest
import torch
from torch import Tensor, nn

from impasto.learning.muon import Muon, orthogonalise, orthogonalise_all
from impasto.transformer import TransformerNet


@pytest.mark.parametrize("shape", [(3, 8, 20), (1, 20, 8), (2, 5, 9)])
def test_orthogonalised_matrices_keep_their_singular_vectors(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    within = left.mT @ orthogonalise(matrices) @ right.mT
    found = within.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(within, torch.diag_embed(found))
    assert values.min() > 0.02 * values.max()
    assert 0.65 < found.min() <= found.max() < 1.25


def test_a_single_direction_comes_to_the_same_length_whatever_its_size() -> None:
    row = torch.tensor([[[3.0, 4.0]]], dtype=torch.float64)
    for size in (1e-6, 1.0, 1e6):
        found = orthogonalise(size * row)
        torch.testing.assert_close(found / found.norm(), row / 5)
        assert 0.65 < found.norm() < 1.25


def test_nothing_comes_of_nothing() -> None:
    assert not orthogonalise(torch.zeros(1, 2, 3)).any()


def step(parameters: list[nn.Parameter], gradients: list[Tensor], *, optimizer: type[torch.optim.Adam]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer(parameters, lr=0.01).step()


def test_convolutions_between_features_move_by_twice_the_rate_and_the_others_as_with_adam() -> None:
    torch.manual_seed(0)
    network = TransformerNet(4)
    plain, before = copy.deepcopy(network), copy.deepcopy(network)
    gradients = [torch.randn_like(each) for each in network.parameters()]
    step(list(network.parameters()), gradients, optimizer=Muon)
    step(list(plain.parameters()), gradients, optimizer=torch.optim.Adam)
    moved = {}
    for name, parameter in network.named_parameters():
        if not torch.equal(parameter, plain.get_parameter(name)):
            moved[name] = float((parameter.detach() - before.get_parameter(name).detach()).square().mean().sqrt())
    between = [f"layers.{number}.conv.weight" for number in (1, 2)]
    between += [f"layers.{number}.{part}.conv.weight" for number in range(3, 8) for part in ("first", "second")]
    assert list(moved) == [*between, "layers.8.layer.conv.weight", "layers.9.layer.conv.weight"]
    assert all(0.014 < length < 0.024 for length in moved.values())


def test_the_momentum_is_that_of_torchs_own_muon() -> None:
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(6, 4, 3, 3))
    theirs = nn.Parameter(ours.detach().flatten(1).clone())
    optimizer = Muon([ours], lr=0.01)
    plain = torch.optim.Muon([theirs], lr=0.1, weight_decay=0, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        ours.grad = torch.randn_like(ours)
        theirs.grad = ours.grad.flatten(1).clone()
        optimizer.step()
        plain.step()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours.flatten(1), theirs, atol=3e-3, rtol=0)  # that one works in bfloat16
    assert (ours.flatten(1) - theirs).square().mean().sqrt() < 0.02 * 5 * 0.02


def test_it_steps_with_a_closure_and_leaves_alone_what_has_no_gradient() -> None:
    used, unused = nn.Parameter(torch.ones(2, 4, 1, 1)), nn.Parameter(torch.ones(2, 4, 1, 1))

    def closure() -> Tensor:
        loss = used.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    assert Muon([used, unused], lr=0.1).step(closure) == 8
    assert torch.equal(unused, torch.ones(2, 4, 1, 1))
    assert (used < 1).all()


@pytest.mark.parametrize("shapes", [[(4, 36)], [(8, 18), (2, 36), (16, 4), (8, 18)]])
def test_matrices_of_several_sizes_are_orthogonalised_as_each_alone(shapes: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    matrices = [torch.randn(shape) for shape in shapes]
    expected = [orthogonalise(each[None])[0] for each in matrices]
    torch.testing.assert_close(orthogonalise_all(matrices), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_takes_the_steps_that_a_cpu_takes() -> None:
    torch.manual_seed(0)
    here = [nn.Parameter(torch.randn(shape)) for shape in ((8, 4, 3, 3), (4, 8, 3, 3), (8,))]
    there = [nn.Parameter(each.detach().cuda()) for each in here]
    optimizers = [Muon(here, lr=0.01), Muon(there, lr=0.01)]
    for number in range(6):
        for ours, theirs in zip(here, there, strict=True):
            ours.grad = torch.randn_like(ours)
            theirs.grad = ours.grad.cuda()
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 0.01 / (1 + number)
            optimizer.step()
    torch.testing.assert_close([each.detach().cpu() for each in there], [each.detach() for each in here])
    (recording,) = optimizers[1]._replays._recordings.values()
    assert recording is not None


def test_a_copy_takes_the_steps_of_the_original() -> None:
    weight = nn.Parameter(torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0)))
    optimizer = Muon([weight], lr=0.01)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    copied = copy.deepcopy(optimizer)
    (theirs,) = copied.param_groups[0]["params"]
    theirs.grad, before = torch.ones_like(weight), theirs.detach().clone()
    for each in (optimizer, copied):
        each.step()
    torch.testing.assert_close(theirs, weight, rtol=0, atol=0)
    assert not torch.equal(theirs, before)
