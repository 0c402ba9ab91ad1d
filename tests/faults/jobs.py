"""The two jobs that the harness disturbs: `prepare build` and `train fit`, small, with their digests."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import h5py

from common.dataset import reading
from common.dataset.checksums import content_digest
from common.dataset.index import data_files, index_path, read_index
from common.manifest import SPLITS
from tests.preloaded import Preloaded
from tests.train.conftest import write_data
from train.run import checkpoint

ROOT = Path(__file__).parents[2]
Process = Union[subprocess.Popen, Preloaded]
LIMIT = 900  # s; a process that takes longer hangs
PREPARE = """
name: job
source: {{dir: runs}}
camera: {{shape: [240, 192]}}
runs: {{dark: [68], classes: {{nolasing: [69], lasing: [70]}}}}
select: {{train: 500, test: 100}}
manifest_dir: {runs}
image: {{compression: {compression}}}
shard: {shard}
simulate: {{rate: 4.0, shots: {{dark: 60, nolasing: 420, lasing: 420}}}}
"""
TRAIN = """
name: job
data: {data}
threads: {{intra: 1, inter: 1}}
input: [48, 60]
preprocess: [standardize]
network:
  - convolution: {{kernel_size: [7, 7], filters: 4, strides: [3, 3], stddev: 0.1}}
  - batch_normalization: {{}}
  - relu
  - average_pool: {{pool_size: [4, 4], strides: [3, 3]}}
  - dropout: {{rate: 0.3}}
  - output: {{stddev: 0.01}}
optimizer: {{kind: adam}}
learning_rate: {{start: 0.002}}
minibatch: 20
cache: stream
steps: {steps}
table_every: 20
checkpoint_seconds: 0.1
report: false
"""
STEPS = 250


class Ended(NamedTuple):
    """A process that ended: its exit code (negative: a signal's number), what it printed, its time."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def one_line(self) -> bool:
        """Whether standard error ends in one clear line and has no traceback."""
        return "Traceback" not in self.err and self.err.strip().splitlines()[-1:] != []


class Job:
    """One of the two commands, in a folder of its own; `name` is its word in the counts."""

    name = ""
    words: list[str] = []
    ways_to_start = (True,)  # values of `loading`

    def __init__(self, folder: Path, shared: Path) -> None:
        self.folder, self.shared = folder, shared
        self.reset()

    def reset(self) -> None:
        """As if it had never run."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def command(self, again: bool) -> list[str]:
        """What a user types, the first time or to go on."""
        return [sys.executable, *self.words]

    def digest(self) -> str:
        """Of everything that the finished job made and that should not depend on how it went."""
        raise NotImplementedError

    def finished(self) -> bool:
        """Whether the result is there under its name."""
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """What an unfinished job left that a finished one must not leave."""
        raise NotImplementedError

    def locks(self) -> list[Path]:
        """The lock files of the job that is at work."""
        return [*self.folder.rglob("lock"), *self.folder.rglob(".*.lock")]

    def at_work(self) -> bool:
        """Whether the job has loaded what it needs, and works."""
        return bool(self.locks())

    def start(
        self, again: bool = False, prefix: list[str] = (), loading: bool = True, **options: Any
    ) -> Process:
        """Start the command. prefix: words before it, such as strace's.

        loading: whether it may be disturbed while it loads what it needs; `fit` then loads TensorFlow.
        """
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            [*prefix, *self.command(again)], cwd=self.folder, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def run(self, again: bool = False, **options: Any) -> Ended:
        """Run the command to its end."""
        start = time.monotonic()
        return end(self.start(again, loading=False, **options), start)


def end(process: Process, start: float) -> Ended:
    """Wait for the end of `process`; one that hangs is killed and counts as exit code 99."""
    try:
        out, err = process.communicate(timeout=LIMIT)
        code = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        code = 99
    return Ended(code, out, err, time.monotonic() - start)


class Build(Job):
    """`prepare build` of 600 images, compressed, in files of 150."""

    name = "build"
    compression, shard = "bitshuffle-lz4", 150
    words = ["-m", "prepare", "build", "prepare.yaml"]

    def reset(self) -> None:
        super().reset()
        (self.shared / "runs").mkdir(parents=True, exist_ok=True)
        (self.folder / "runs").symlink_to(self.shared / "runs")
        (self.folder / "prepare.yaml").write_text(
            PREPARE.format(runs=self.shared / "runs", compression=self.compression, shard=self.shard)
        )

    @property
    def output(self) -> Path:
        return self.folder / "data" / ("job" if self.shard < 600 else "job.h5")

    def finished(self) -> bool:
        return self.output.exists()

    def digest(self) -> str:
        sha = hashlib.sha256()
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(reading.open_data(path)) for path in data_files(self.output)]
            content = content_digest(*files)
            for file in files if len(files) == 1 else ():
                if content != reading.attributes(file)["content_digest"]:
                    return "the content digest does not agree with the content"
            if len(files) > 1 and content != read_index(index_path(self.output)).content_digest:
                return "the content digest does not agree with the index"
            sha.update(content.encode())
            for split in SPLITS:
                for file in (file for file in files if split in file):
                    sha.update(file[split]["images"][...])
        return sha.hexdigest()

    def leftovers(self) -> list[str]:
        partial = [path.name for path in self.output.rglob("partial.*")]
        return partial + [path.name for path in self.output.parent.iterdir() if path != self.output]


class BuildFile(Build):
    """The same without compression, in one file."""

    name = "build, one file"
    compression, shard = "none", 2000


class BuildJobs(Build):
    """The same without compression by three processes, of which the first gets the signals."""

    name = "build, 3 jobs"
    compression, shard = "none", 60
    words = [*Build.words, "--jobs", "3"]


class Fit(Job):
    """`train fit` of a small network that has every kind of state."""

    name = "fit"
    words = ["-m", "train", "fit", "train.yaml"]
    ways_to_start = (True, False)

    def reset(self) -> None:
        super().reset()
        config = TRAIN.format(data=self.data, steps=STEPS)
        (self.folder / "train.yaml").write_text(config)

    @property
    def data(self) -> Path:
        return self.shared / "small.h5"

    @property
    def run_dir(self) -> Path:
        return self.folder / "runs" / "job"

    def command(self, again: bool) -> list[str]:
        return [*super().command(again), *(["--resume"] if again else [])]

    def start(
        self, again: bool = False, prefix: list[str] = (), loading: bool = True, **options: Any
    ) -> Process:
        if loading or prefix or options or "command" in vars(self):
            return super().start(again, prefix, **options)
        return Preloaded(*self.command(again)[3:], cwd=self.folder)

    def finished(self) -> bool:
        return (self.run_dir / "summary.json").exists()

    def at_work(self) -> bool:
        return (self.run_dir / "metrics.csv").exists()

    def digest(self) -> str:
        state = checkpoint.load(self.run_dir)
        sha = hashlib.sha256(_without_times(state.table))
        for array in (*state.model, *state.optimizer, state.gradient):
            sha.update(array)
        with zipfile.ZipFile(self.run_dir / "model.keras") as parts:
            stream = io.BytesIO(parts.read("model.weights.h5"))
        with h5py.File(stream, "r") as file:
            file.visititems(
                lambda name, node: sha.update(node[...]) if isinstance(node, h5py.Dataset) else None
            )
        if _without_times((self.run_dir / "metrics.csv").read_bytes()) != _without_times(state.table):
            return "metrics.csv is not the checkpoint's table"
        return sha.hexdigest()

    def leftovers(self) -> list[str]:
        return [str(path) for path in self.run_dir.rglob("*") if path.name.startswith(("partial.", "lock"))]


def _without_times(table: bytes) -> bytes:
    """The table without its columns of seconds, which are not a matter of the weights."""
    lines = [line.split(b",") for line in table.splitlines()]
    kept = [n for n, name in enumerate(lines[0]) if b"seconds" not in name]
    return b"\n".join(b",".join(line[n] for n in kept) for line in lines)


def shared_inputs(folder: Path) -> Path:
    """Simulated runs, their manifest, and the data file that `fit` trains on, made once."""
    folder.mkdir(parents=True, exist_ok=True)
    job = Build(folder / "first", folder)
    for words in (["simulate"], ["select"], ["build"]):
        subprocess.run(
            [sys.executable, "-m", "prepare", *words, "prepare.yaml"], cwd=job.folder, check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    write_data(folder / "small.h5", {"train": 80, "test": 40}, (48, 60))
    return folder


def reference(kind: type, folder: Path, shared: Path) -> dict[str, Any]:
    """The digest of a job that nothing disturbs, its time, when its work begins, and how long it loads."""
    digests, loads = set(), 0.0
    for loading in kind.ways_to_start:
        job = kind(folder / f"reference_{kind.name}", shared)
        start = time.monotonic()
        process = job.start(loading=loading)
        while not job.at_work() and process.poll() is None:
            time.sleep(0.01)
        begins = time.monotonic() - start
        loads = begins if loading else loads
        ended = end(process, start)
        if ended.code or not job.finished():
            raise SystemExit(f"the undisturbed {kind.name} failed: {ended.err or ended.out}")
        digests.add(job.digest())
    if len(digests) > 1:
        raise SystemExit(f"the undisturbed {kind.name} makes something else the second time")
    return {"digest": digests.pop(), "seconds": ended.seconds, "begins": begins, "loads": loads}


def wrong(job: Job, digest: str) -> Optional[str]:
    """What is wrong with a job that has ended with exit code 0; None if nothing is."""
    if not job.finished():
        return "no result"
    if job.digest() != digest:
        return f"another result ({job.digest()[:60]})"
    if job.leftovers():
        return f"leftovers: {', '.join(job.leftovers())}"
    return None
