"""Random numbers without a state: what is drawn depends on a seed alone, not on what was drawn before."""

import numpy as np


# Constants of SplitMix64, see `scramble`.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def scramble(numbers: np.ndarray) -> np.ndarray:
    """Map 64-bit integers one to one onto well-spread ones (the finalizer of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is what is wanted
        numbers = np.asarray(numbers, dtype=np.uint64) + _GOLDEN
        numbers = (numbers ^ (numbers >> np.uint64(30))) * _MIX_1
        numbers = (numbers ^ (numbers >> np.uint64(27))) * _MIX_2
        return numbers ^ (numbers >> np.uint64(31))


def mix(*numbers: int | np.ndarray) -> np.ndarray:
    """Combine integers, or arrays of them that broadcast, into seeds: `mix(run_seed, epoch, example)`."""
    seeds = np.zeros((), dtype=np.uint64)
    for number in numbers:
        seeds = scramble(seeds ^ np.asarray(number).astype(np.uint64))
    return seeds


def uniforms(seeds: np.ndarray, count: int, stream: int) -> np.ndarray:
    """Draw `count` numbers in [0, 1) for each seed: `(batch,)` to `(batch, count)`. Streams are independent."""
    bits = mix(np.asarray(seeds)[:, None], stream, np.arange(count))
    return (bits >> np.uint64(11)) * 2.0**-53  # the 53 bits that a float has room for
