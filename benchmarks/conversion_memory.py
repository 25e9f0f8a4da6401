"""Measure the peak memory of `vlkd convert` against its limit: 1.2 times the sum of larger tower and output.

    python benchmarks/conversion_memory.py --vision RN50x16 --form openai --text base

It makes a CLIP and a BART of full size with random weights in a temporary folder, and converts them in a separate
process. The memory of that process is counted from after its imports, with the proof and with mapped files. Linux
only. Needs disk for both towers and twice the output (ViT-B-16 and BART-base: 2.5 GB; RN50x64 and BART-large: 11 GB).
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory


FORMS = ("openai", "open_clip", "transformers")
LARGE = {"d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096}
LARGE |= {"encoder_attention_heads": 16, "decoder_attention_heads": 16}
BASE = {"d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072}
BASE |= {"encoder_attention_heads": 12, "decoder_attention_heads": 12}
FACTOR = 1.2  # the peak may be so many times the size of the larger tower and the output together


def make_clip(name: str, form: str, folder: Path) -> str:
    """Write a CLIP with random weights; return its name for `--vision`."""
    import open_clip
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    cfg = open_clip.get_model_config(name)
    size = cfg["vision_cfg"]["image_size"]
    if form == "transformers":
        vision, text = cfg["vision_cfg"], cfg["text_cfg"]
        if not isinstance(vision["layers"], int):
            raise SystemExit(f"transformers has no class for {name}; choose --form openai or open_clip.")
        sizes = {"hidden_size": vision["width"], "intermediate_size": 4 * vision["width"], "image_size": size}
        sizes |= {"num_hidden_layers": vision["layers"], "patch_size": vision["patch_size"]}
        sizes |= {"num_attention_heads": vision["width"] // 64}
        text_sizes = {"hidden_size": text["width"], "intermediate_size": 4 * text["width"]}
        text_sizes |= {"num_hidden_layers": text["layers"], "num_attention_heads": text["heads"]}
        config = CLIPConfig(vision_config=sizes, text_config=text_sizes, projection_dim=cfg["embed_dim"])
        CLIPModel(config).save_pretrained(folder / "clip")
        square = {"height": size, "width": size}
        CLIPImageProcessor(size={"shortest_edge": size}, crop_size=square).save_pretrained(folder / "clip")
        return str(folder / "clip")
    model = open_clip.model.CLIP(**{**cfg, "quick_gelu": form == "openai"})
    if form == "openai":
        open_clip.model.convert_weights_to_lp(model)  # half precision, as published
    torch.save(model.state_dict(), folder / "clip.pt")
    return str(folder / "clip.pt") if form == "openai" else f"{name}:{folder / 'clip.pt'}"


def make_bart(size: str, folder: Path) -> str:
    """Write a BART with random weights and the miniature's tokenizer."""
    from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration

    from modeling_vlkd.miniature.distilling import WEIGHTS

    BartForConditionalGeneration(BartConfig(**(LARGE if size == "large" else BASE))).save_pretrained(folder / "bart")
    AutoTokenizer.from_pretrained(WEIGHTS / "bart").save_pretrained(folder / "bart")
    return str(folder / "bart")


def peak_memory() -> int:
    """Return the largest resident set of this process so far, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(vision: str, text: str, output: Path) -> dict[str, float]:
    """Convert, and return bytes: the peak above the imports, the larger tower and the output."""
    from modeling_vlkd.conversion.assembling import convert

    imports = peak_memory()
    report = convert(vision, text, output)
    parameters = {part.name: part.parameters for part in report.parts}
    return {
        "peak": peak_memory() - imports,
        "tower": 4 * max(parameters["vision tower"], parameters["language model"]),  # fp32
        "output": sum(path.stat().st_size for path in output.iterdir()),
        "difference": max(check.difference for check in report.checks),
    }


def in_own_process(*arguments: str) -> str:
    """Run one step of this script in a new process, so that its memory is counted alone; return its last line."""
    result = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    if result.returncode:
        raise SystemExit(result.returncode)
    return result.stdout.strip().splitlines()[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vision", default="ViT-B-16", help="open_clip's name of the architecture (ViT-B-16)")
    parser.add_argument("--form", choices=FORMS, default="openai", help="format of the CLIP (openai)")
    parser.add_argument("--text", choices=["base", "large"], default="base", help="size of the BART (base)")
    parser.add_argument("--step", choices=["clip", "bart", "measure"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--sources", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step == "clip":
        print(make_clip(args.vision, args.form, args.folder))
    elif args.step == "bart":
        print(make_bart(args.text, args.folder))
    elif args.step == "measure":
        print(json.dumps(measure(*args.sources, args.folder / "output")))
    else:
        with TemporaryDirectory() as folder:
            options = ["--vision", args.vision, "--form", args.form, "--text", args.text, "--folder", folder, "--step"]
            sources = [in_own_process(*options, "clip"), in_own_process(*options, "bart")]
            found = json.loads(in_own_process(*options, "measure", "--sources", *sources))
        limit = FACTOR * (found["tower"] + found["output"])
        print(f"{args.vision} ({args.form}) with BART-{args.text}")
        for name in ("tower", "output", "peak"):
            print(f"  {name:<8}{found[name] / 2**20:8.0f} MiB")
        print(f"  peak / (1.2 x (tower + output)) = {found['peak'] / limit:.2f}, at most 1 is allowed")
        print(f"  largest difference in the proof = {found['difference']:.2g}")
        if found["peak"] > limit:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
