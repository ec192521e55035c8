"""What a user would pick instead, each in one run on the same data, from scratch, in the same time.

    python benchmarks/side_by_side.py                # 10 minutes of training per tool: an hour and a half
    python benchmarks/side_by_side.py --minutes 5
    python benchmarks/side_by_side.py --quick-check  # 20 s per tool, to see that they work; not recorded
    python benchmarks/side_by_side.py --only stardist cellpose --fresh

Every tool learns from nuclei-dsb2018/train/fluo and segments nuclei-dsb2018/test/fluo, on two cores at most,
without a GPU, one after another. Each rival is installed by pip into an environment of its own, under
.scratch/side_by_side/envs, and run there by its runner in benchmarks/_side_by_side, which follows the tool's
own example. The label images that they wrote are scored here, all by the same function.
docs/side-by-side.md says more.

No published weights take part, ours neither. What is finished is kept in .scratch/side_by_side, so that an
interrupted run goes on, as long as neither the runner nor the number of cores has changed; what failed is
recorded with its error, and tried again by the next run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from _common import REPOSITORY, data_dir, write_result
from _side_by_side._figures import best_of_others, scores, table
from napari_unet_seg.core.objects import ObjectSettings, objects_from_probabilities

THREADS = min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
"""Two cores for each tool, or the one that this process may use: `taskset -c 0 python …`."""
SEED = 0
DATA = "nuclei-dsb2018"
RUNNERS = Path(__file__).resolve().parent / "_side_by_side"
WORK = REPOSITORY / ".scratch" / "side_by_side"
QUICK_CHECK_S = 20.0
OURS = "napari-unet-seg"


@dataclass(frozen=True)
class Tool:
    """A tool, its runner, and what pip installs for it; nothing: it runs where this benchmark does."""

    name: str
    runner: str
    requirements: tuple[str, ...] = ()


TOOLS = (
    Tool(OURS, "run_ours.py"),
    Tool(
        "random forest",
        "run_forest.py",
        (
            "scikit-learn==1.9.1",
            "scikit-image==0.26.0",
            "scipy==1.17.1",
            "numpy==2.4.6",
            "tifffile==2026.3.3",
        ),
    ),
    Tool(
        "napari-unet-assistant",
        "run_assistant.py",
        ("napari-unet-assistant==0.6.5", "torch==2.13.0", "scipy==1.17.1"),
    ),
    Tool(
        "MONAI U-Net",
        "run_monai.py",
        ("monai==1.6.1", "torch==2.13.0", "scipy==1.17.1", "tifffile==2026.3.3"),
    ),
    Tool("StarDist", "run_stardist.py", ("stardist==0.9.1", "tensorflow-cpu==2.15.1", "numpy==1.26.4")),
    Tool("Cellpose", "run_cellpose.py", ("cellpose==3.1.1.2", "torch==2.13.0")),
)
"""The same build of torch for all that need it; StarDist's compiled parts need numpy 1."""


class ToolFailedError(Exception):
    """A tool could not be installed, trained, or used; the message is what it said."""


def short(tool: Tool) -> str:
    """What its folders are called, and how `--only` names it."""
    return tool.runner.removeprefix("run_").removesuffix(".py")


def interpreter(tool: Tool) -> Path:
    """The Python that runs the tool, its environment made if it is not there yet.

    Raises
    ------
    ToolFailedError
        pip could not install it.
    """
    if not tool.requirements:
        return Path(sys.executable)
    folder = WORK / "envs" / short(tool)
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join(tool.requirements)
    if not (installed.exists() and installed.read_text(encoding="utf-8") == wanted):
        print(f"Installing {tool.name}", flush=True)
        call([sys.executable, "-m", "venv", str(folder)], timeout_s=300)
        call([str(python), "-m", "pip", "install", "--quiet", *tool.requirements], timeout_s=3600)
        installed.write_text(wanted, encoding="utf-8")
    return python


def call(command: list[str], timeout_s: float) -> None:
    """Run a program on the cores that all get; its own messages go where ours go.

    Raises
    ------
    ToolFailedError
        It failed or did not end; the message is the end of what it wrote to stderr.
    """
    names = ("OMP", "MKL", "OPENBLAS", "NUMBA", "TF_NUM_INTRAOP", "TF_NUM_INTEROP")
    threads = {f"{name}{'' if name.startswith('TF') else '_NUM'}_THREADS": str(THREADS) for name in names}
    environment = {**os.environ, **threads, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    try:
        done = subprocess.run(
            command, env=environment, stderr=subprocess.PIPE, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ToolFailedError(f"did not end within {timeout_s:.0f} s") from error
    if done.returncode:
        raise ToolFailedError(done.stderr[-2000:] or f"ended with {done.returncode}")


def measured(tool: Tool, seconds: float) -> dict[str, Any]:
    """Install, train, predict, score: the scores of its own objects, and of ours where it gives pixels.

    Raises
    ------
    ToolFailedError
        At any of these.
    """
    folder = WORK / "runs" / f"{seconds:g}s" / short(tool)
    folder.mkdir(parents=True, exist_ok=True)
    test = data_dir() / DATA / "test" / "fluo"
    job = {
        "train_images": str(data_dir() / DATA / "train" / "fluo" / "images"),
        "train_labels": str(data_dir() / DATA / "train" / "fluo" / "labels"),
        "test_images": str(test / "images"),
        "folder": str(folder),
        "labels_out": str(folder / "labels"),
        "foreground_out": str(folder / "foreground"),
        "seconds": seconds,
        "threads": THREADS,
        "seed": SEED,
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    python = interpreter(tool)
    result: dict[str, Any] = {}
    for phase in ("train", "predict"):
        print(f"{tool.name}: {phase}, load {os.getloadavg()[0]:.1f}", flush=True)
        runner = [str(python), str(RUNNERS / tool.runner), phase, str(folder / "job.json")]
        call(runner, timeout_s=3 * seconds + 600)
        result[phase] = json.loads((folder / f"{phase}.json").read_text(encoding="utf-8"))
    truth = {path.name: tifffile.imread(path) for path in sorted((test / "labels").glob("*.tif"))}
    result["scores"] = scores([(tifffile.imread(folder / "labels" / name), truth[name]) for name in truth])
    if any((folder / "foreground").glob("*.tif")):
        result["scores_with_our_objects"] = scores(
            [(our_objects(folder / "foreground" / name), truth[name]) for name in truth]
        )
    return result


def our_objects(foreground: Path) -> np.ndarray:
    """Objects (Y, X) from P(object), by our function with its default settings."""
    return objects_from_probabilities(tifffile.imread(foreground), ObjectSettings())


def finished(tool: Tool, seconds: float, *, is_fresh: bool, is_kept_only: bool) -> dict[str, Any]:
    """The result of a tool, measured now or earlier by the same runner; `error` where it failed.

    With `is_kept_only` nothing is measured now, and what is not finished is an error too.
    """
    path = WORK / "runs" / f"{seconds:g}s" / f"{short(tool)}.json"
    recipe = recipe_of(tool)
    if path.exists() and not is_fresh:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["recipe"] == recipe and "error" not in kept["result"]:
            result: dict[str, Any] = kept["result"]
            return result
        if is_kept_only and kept["recipe"] == recipe:
            return dict(kept["result"])
    if is_kept_only:
        return {"error": "not measured with this budget yet"}
    try:
        result = measured(tool, seconds)
    except ToolFailedError as error:
        result = {"error": str(error)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"recipe": recipe, "result": result}), encoding="utf-8")
    return result


def recipe_of(tool: Tool) -> str:
    """A fingerprint of how a tool is run."""
    parts = [(RUNNERS / tool.runner).read_bytes(), (RUNNERS / "_job.py").read_bytes()]
    return hashlib.sha256(b"".join([*parts, repr((tool, THREADS)).encode()])).hexdigest()


def record(tools: Mapping[str, Mapping[str, Any]], seconds: float) -> None:
    """Write the result of all tools."""
    ours = None if "error" in tools[OURS] else tools[OURS]["scores"]["f1_at"]["0.5"]
    rival = best_of_others(tools, OURS, "0.5")
    write_result(
        "side_by_side",
        {
            "what": f"nuclei from scratch, {seconds / 60:g} min: F1 at IoU 0.5, ours, best other",
            "value": [ours, rival[1] if rival else None],
            "best_of_the_others": rival[0] if rival else None,
            "training_budget_s": seconds,
            "threads": THREADS,
            "seed": SEED,
            "train": f"{DATA}/train/fluo",
            "test": f"{DATA}/test/fluo",
            "requirements": {tool.name: tool.requirements for tool in TOOLS},
            "tools": tools,
        },
    )


def main() -> None:
    """Every tool, one after another."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="of training, per tool")
    parser.add_argument("--only", nargs="+", choices=[short(tool) for tool in TOOLS], help="not recorded")
    parser.add_argument("--quick-check", action="store_true", help=f"{QUICK_CHECK_S:.0f} s; not recorded")
    parser.add_argument("--fresh", action="store_true", help="forget what is finished")
    parser.add_argument("--kept", action="store_true", help="measure nothing, record what is finished")
    arguments = parser.parse_args()
    seconds = QUICK_CHECK_S if arguments.quick_check else 60 * arguments.minutes
    tools = {}
    for tool in TOOLS:
        if not arguments.only or short(tool) in arguments.only:
            tools[tool.name] = finished(
                tool, seconds, is_fresh=arguments.fresh and not arguments.kept, is_kept_only=arguments.kept
            )
            print(json.dumps({tool.name: tools[tool.name]}), flush=True)
    if not (arguments.quick_check or arguments.only):
        record(tools, seconds)
    print(table(tools))


if __name__ == "__main__":
    main()
