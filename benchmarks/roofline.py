"""Count what the networks do on a GPU, without one, and estimate how long it takes there.

    python benchmarks/roofline.py [--part vit_h --precision bfloat16 --batch 16 --operators] [--write]

The networks run at full size on fake tensors (`wsss_ray/models/cost/`): launches, memory traffic and arithmetic of each
operator, in seconds, without a GPU and without weights. Estimates take the slower of arithmetic and traffic for each
operator, at the shares of `wsss_ray/models/cost/gpus.py`. Nothing has been measured on a GPU.

`--write` renews `wsss_ray/models/cost/counted.json`, from which `--dry-run` and the tables of docs/performance.md take
their figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch

from wsss_ray.models.cost import parts
from wsss_ray.models.cost.counted import FILE, Counted, counted, seconds_per_image
from wsss_ray.models.cost.counter import Count
from wsss_ray.models.cost.estimate import seconds
from wsss_ray.models.cost.gpus import GPUS

PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
DATA = Path(parts.__file__).with_name(FILE)


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=parts.PARTS, help="default: all, in every precision")
    parser.add_argument("--precision", choices=PRECISIONS, default="bfloat16", help="of --part")
    parser.add_argument("--batch", type=int, help="images that run together; default: 8, of a detector 4")
    parser.add_argument("--stock", action="store_true", help="with stock operators in place of the Triton kernels")
    parser.add_argument("--operators", type=int, metavar="N", default=12, help="operators and lines to print of --part")
    parser.add_argument("--write", action="store_true", help=f"write {FILE}")
    parser.add_argument("--json", type=Path, help="write what was counted to this file")
    parser.add_argument("--images", type=int, default=82_081, help="of the data set; default: COCO train2014")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part:
        batch = options.batch or parts.BATCH[options.part]
        count = parts.count(options.part, options.precision, batch=batch, triton=not options.stock)
        stock = parts.count(options.part, options.precision, batch=batch, triton=False)
        entries = [entry_of(options.part, options.precision, batch, count, stock)]
        print(table(entries))
        print(operators(count, batch, options.operators))
    else:
        entries = count_all(triton=not options.stock)
        print(table(entries))
    if options.write:
        DATA.write_text(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=1) + "\n", encoding="utf-8")
        counted.cache_clear()
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(entry) for entry in entries]), encoding="utf-8")
    if not options.part:
        print(speeds(options.images))


def count_all(*, triton: bool = True) -> list[Counted]:
    """Return every part in every precision that it has."""
    entries = []
    for part in parts.PARTS:
        batch, made = parts.BATCH[part], {}
        for precision in parts.precisions_of(part):
            same = {"tf32": "float32", "float16": "bfloat16"}.get(precision, precision)  # but for the speed of products
            if same not in made:
                stock = parts.count(part, same, batch=batch, triton=False)
                made[same] = (parts.count(part, same, batch=batch) if triton else stock, stock)
            entries.append(entry_of(part, precision, batch, *made[same]))
    return entries


def entry_of(part: str, precision: str, batch: int, count: Count, stock: Count) -> Counted:
    """Return a count for one image, with the times of `stock` operators on GPUs that Triton does not know."""
    tf32 = precision == "tf32"
    return Counted(
        part=part,
        precision=precision,
        batch=batch,
        launches=count.launches,
        waits=count.waits + parts.READS.get(part, 0),
        gigabytes=round(count.bytes / batch / 1e9, 2),
        gigaflops=round(count.flops / batch / 1e9, 1),
        milliseconds={
            gpu.name: round(seconds(count if gpu.has_triton else stock, gpu, tf32=tf32) / batch * 1e3, 2)
            for gpu in GPUS
        },
    )


def table(entries: list[Counted]) -> str:
    """Return a Markdown table of counts for an image, with the estimate for each GPU."""
    names = [gpu.name for gpu in GPUS]
    lines = [
        "| part | precision | images at once | launches | waits | GB | GFLOP | "
        + " | ".join(f"{name}, ms" for name in names)
        + " |",
        "|---|---|---|---|---|---|---|" + "---|" * len(names),
    ]
    for entry in entries:
        times = " | ".join(f"{entry.milliseconds[name]:.1f}" for name in names)
        launches = f"{entry.launches / entry.batch:.0f}"
        waits = f"{entry.waits / entry.batch:.2g}"
        counts = f"{entry.batch} | {launches} | {waits} | {entry.gigabytes:.1f} | {entry.gigaflops:,.0f}"
        lines.append(f"| {entry.part} | {entry.precision} | {counts} | {times} |")
    return "\n".join(lines)


def operators(count: Count, batch: int, shown: int) -> str:
    """Return the operators, and the lines of code, with the most memory traffic."""
    lines = ["", "| operator | launches | GB an image | GFLOP an image |", "|---|---|---|---|"]
    for name, work in sorted(count.operators.items(), key=lambda item: -item[1].bytes)[:shown]:
        lines.append(f"| {name} | {work.launches} | {work.bytes / batch / 1e9:.3f} | {work.flops / batch / 1e9:.1f} |")
    lines += ["", "| line | GB an image |", "|---|---|"]
    for line, nbytes in sorted(count.lines.items(), key=lambda item: -item[1])[:shown]:
        lines.append(f"| {line} | {nbytes / batch / 1e9:.3f} |")
    lines.append(f"\nweights cast in a forward pass: {count.weight_bytes_cast / 1e9:.2f} GB")
    return "\n".join(lines)


def speeds(images: int, encoder: str = "vit_h") -> str:
    """Return a Markdown table: for each GPU the estimated images/s, hours and dollars of a data set.

    The precisions are those of the presets: 16 bits, but float32 for the detector on a GPU without bfloat16.
    """
    lines = ["", "| GPU | ms an image | images/s | hours on 1 / 8 / 64 GPUs | dollars |", "|---|---|---|---|---|"]
    for gpu in GPUS:
        took = seconds_per_image(gpu, encoder, segmenter="float16")
        hours = images * took / 3600
        parted = " / ".join(f"{hours / gpus:.2g}" for gpus in (1, 8, 64))
        lines.append(
            f"| {gpu.name} | {took * 1e3:.1f} | {1 / took:.1f} | {parted} | {hours * gpu.dollars_per_hour:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
