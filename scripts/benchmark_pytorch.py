"""Time inference and training steps beside the same networks in PyTorch, on the CPU: python scripts/benchmark_pytorch.py.

The networks in PyTorch are the references of the tests (`tests/weights/references`), so this runs in a checkout with the extra `torch`.
kpose's network takes the other one's weights, and both must answer alike before anything is measured: they are the same function. PyTorch
is measured with its default layout, as the published code runs it, and with channels last. Times are CPU time of one thread, which
other work on the machine hardly stretches; --threads measures what passes with several.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

NETWORKS = ("lite_mobilenet_v3", "hrnet_w32")
LARGEST_DIFFERENCE = 1e-3


def main() -> int:
    """Measure and print; returns 1 when the networks do not answer alike."""
    parser = argparse.ArgumentParser(description="Time inference and training steps beside the same networks in PyTorch, on the CPU.")
    parser.add_argument("names", metavar="NAME", nargs="*", default=list(NETWORKS), help=f"networks; default: {' '.join(NETWORKS)}")
    parser.add_argument(
        "--input-size", metavar=("HEIGHT", "WIDTH"), nargs=2, type=int, default=[256, 192], help="of the crop; default: 256 192"
    )
    parser.add_argument("--batch-size", metavar="N", type=int, default=8, help="people in a step; default: %(default)s")
    parser.add_argument("--rounds", metavar="N", type=int, default=5, help="turns of each; default: %(default)s")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="of each; 1 counts CPU time, more the time that passes")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(NETWORKS))
    if unknown:
        parser.error(f"no network in PyTorch for {', '.join(unknown)}; there are: {', '.join(NETWORKS)}")
    try:
        import torch
    except ImportError:
        parser.error("PyTorch is not installed; pip install 'kpose[torch]'")

    import tensorflow as tf

    torch.set_num_threads(options.threads)
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    print("| network | what | kpose, ms | PyTorch, ms | channels last, ms | PyTorch / kpose | channels last / kpose |")
    print("|---|---|---|---|---|---|---|")
    for name in options.names:
        if not _print_rows(name, tuple(options.input_size), options.batch_size, options.rounds, options.threads):
            return 1
    print(
        f"{options.input_size[0]}x{options.input_size[1]}, batches of {options.batch_size}, float32, Adam, weighted squared error; "
        f"{options.threads} threads, TensorFlow {tf.__version__}, PyTorch {torch.__version__}; medians of {options.rounds} rounds, in turns"
    )
    return 0


def _print_rows(name: str, input_size: tuple[int, int], batch_size: int, rounds: int, threads: int) -> bool:
    import numpy as np
    import torch

    from kpose.benchmark.latency import milliseconds_in_turns
    from kpose.benchmark.training import INFERENCE, STEP, batch_for, compiled_calls
    from kpose.models import build_model
    from kpose.weights import load_torch

    model, reference = build_model(name, 17, input_size), _reference(name)
    load_torch(model, reference.state_dict())
    images, heatmaps, weights = batch_for(model, batch_size)
    with torch.no_grad():
        theirs = reference.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    ours = model(images, training=False).numpy()
    difference = np.abs(ours - theirs).max() / np.ptp(theirs)
    if not difference < LARGEST_DIFFERENCE:
        print(f"{name}: the heatmaps of both differ by {difference:.1e} of their range; not the same network", file=sys.stderr)
        return False
    calls: dict[tuple[str, str], Callable[[], Any]] = {("kpose", what): call for what, call in compiled_calls(model, batch_size).items()}
    for layout in ("PyTorch", "channels last"):
        twin = _reference(name)
        twin.load_state_dict(reference.state_dict())
        layout_calls = _calls(twin, images, heatmaps, weights, layout == "channels last")
        calls |= {(layout, what): call for what, call in layout_calls.items()}
    times = milliseconds_in_turns(calls, rounds, seconds=0.0, clock=time.process_time if threads == 1 else time.perf_counter)
    for what in (INFERENCE, STEP):
        kpose, default, last = (times[layout, what] for layout in ("kpose", "PyTorch", "channels last"))
        medians = " | ".join(f"{statistics.median(found):.0f}" for found in (kpose, default, last))
        ratios = [statistics.median(one / other for one, other in zip(found, kpose, strict=True)) for found in (default, last)]
        print(f"| `{name}` | {what} | {medians} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)
    return True


def _reference(name: str) -> Any:
    import torch

    torch.manual_seed(0)
    if name == "hrnet_w32":
        from tests.weights.references.hrnet import HighResolutionNetwork

        return HighResolutionNetwork(32, 17)
    from tests.weights.references.lite import LiteNetwork

    return LiteNetwork(17, "full")


def _calls(network: Any, images: Any, heatmaps: Any, weights: Any, channels_last: bool) -> dict[str, Callable[[], float]]:
    """Inference and a training step of a network in PyTorch, with the loss that kpose's network has."""
    import torch

    from kpose.benchmark.training import INFERENCE, STEP

    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(memory_format=layout)
    batch, targets = (torch.from_numpy(part.transpose(0, 3, 1, 2).copy()).to(memory_format=layout) for part in (images, heatmaps))
    joint_weights = torch.from_numpy(weights)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, eps=1e-7)

    def infer() -> float:
        network.eval()
        with torch.inference_mode():
            return float(network(batch)[0, 0, 0, 0])

    def step() -> float:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        error = ((targets + 1.0) * (network(batch) - targets) ** 2).mean((2, 3))
        loss = (error * joint_weights).mean()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return {INFERENCE: infer, STEP: step}


if __name__ == "__main__":
    sys.exit(main())
