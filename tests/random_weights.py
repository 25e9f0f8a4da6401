"""Fill every tensor of a model with random values: initial zeros and ones would hide mistakes from parity tests."""

import torch
from torch import nn


@torch.no_grad()
def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fill all parameters and buffers, also batch norm's statistics, and return the module in eval mode.

    Matrices roughly keep the scale of their inputs, vectors vary around their usual value, variances are positive.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            tensor.fill_(7)
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(0.5 + noise.abs())
        elif tensor.ndim > 1:
            tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
        elif name.endswith("weight"):
            tensor.copy_(1 + 0.3 * noise)
        else:
            tensor.copy_(0.1 * noise)
    return module.eval()


def relative_difference(value: torch.Tensor, expected: torch.Tensor) -> float:
    """Compute the largest difference, relative to the largest expected value."""
    return ((value - expected).abs().max() / expected.abs().max()).item()


def random_pictures(number: int, size: int, seed: int = 1) -> torch.Tensor:
    """Draw normalized pixels `(number, 3, size, size)` of coarse patches: white noise gives nearly equal outputs."""
    patches = torch.randn(number, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(3 * patches, size=(size, size), mode="bicubic")
