"""Random values for every tensor of a model: zeros or ones left from the start would let parity tests pass."""

import torch
from torch import nn


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fills all parameters and buffers, batch norm's statistics included, and returns the module in eval mode.

    Matrices keep their inputs' scale, vectors spread around their usual value, variances stay positive.
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
    """The largest difference, in units of the largest expected value."""
    return ((value - expected).abs().max() / expected.abs().max()).item()


def random_pictures(number: int, size: int, seed: int = 1) -> torch.Tensor:
    """Normalised pixels `(number, 3, size, size)` of coarse patches: white noise would look alike to every network."""
    patches = torch.randn(number, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(3 * patches, size=(size, size), mode="bicubic")
