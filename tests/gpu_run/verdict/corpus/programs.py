"""
The small programs whose outputs ``real.jsonl`` holds, and how each must be told.

``python -m tests.gpu_run.verdict.corpus.programs FOLDER [NAME...]`` runs them anew, as root, with the Python that runs
this, which needs torch, numpy, safetensors, accelerate, transformers, lightning, hydra-core, typer, joblib, pandas, h5py,
requests, jax, numba, pyarrow, ray, tensorflow-cpu, pillow and scikit-learn; a compiler and some other languages, too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Program(NamedTuple):
    """
    A program that fails, or seems to.

    :param kind: how its end must be told.
    :param run: shell text.
    :param files: texts of the files it has, by name.
    :param says: what the sentence must contain.
    :param held_out: it was written before the verdict was, so that how it was told at first is a measurement.
    """

    kind: str
    run: str
    files: dict[str, str] = {}
    says: str = ""
    held_out: bool = False


def py(kind: str, text: str, says: str = "", *, run: str = "python3 train.py", held_out: bool = False) -> Program:
    """Return a Python program."""
    return Program(kind, run, {"train.py": text}, says, held_out)


def held(program: Program) -> Program:
    """Return a program that was held out."""
    return program._replace(held_out=True)


def shell(kind: str, run: str, says: str = "", **files: str) -> Program:
    """Return a program of the shell's."""
    return Program(kind, run, {name.replace("__", "."): text for name, text in files.items()}, says)


# What makes a folder a small disk, and /dev/shm as well, for the commands after it.
FULL = "mkdir -p full; mount -t tmpfs -o size=200k tmpfs full"
SMALL_SHM = "mount -t tmpfs -o size=2m tmpfs /dev/shm"


def mounted(mount: str, run: str) -> str:
    """Return shell text that runs with mounts of its own."""
    return f"{mount}; {run}"


NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups"

LOADER = """
import torch
class Data(torch.utils.data.Dataset):
    def __len__(self): return 64
    def __getitem__(self, i):
        {body}
if __name__ == "__main__":
    for batch in torch.utils.data.DataLoader(Data(), batch_size=4, num_workers=2): pass
"""

RANKS = """
import datetime, os, sys, time
import torch, torch.distributed as dist
rank = int(os.environ["RANK"])
{body}
"""
TORCHRUN = "python3 -m torch.distributed.run --nproc-per-node 2 --master-port {port} train.py"


def ranks(kind: str, body: str, port: int, says: str = "") -> Program:
    """Return a program of two ranks."""
    return py(kind, RANKS.format(body=body), says, run=TORCHRUN.format(port=port))


HTTP = """
import http.server, threading, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({code}); self.send_header("Content-Length", "0"); {more}; self.end_headers()
    do_HEAD = do_POST = do_GET
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = "http://127.0.0.1:%d" % server.server_port
"""

LONG_CLEANUP = "python3 -c \"for i in range(4000): print(f'cleaning up buffer {i} of 4000')\" >&2"
_CLEANUP_LINES = "".join(f"cleaning up buffer {i} of 4000\n" for i in range(4000))
# Whoever reads the corpus makes these lines anew; see ``cases.py``.
_CLEANUP_MARK = "[[4000 x cleaning up buffer # of 4000]]\n"

PROGRAMS: dict[str, Program] = {
    # -- the code's own errors ------------------------------------------------------------------------------------
    "gate": py(
        "user_error",
        "import sys\nprint('epoch 1 loss 0.9')\nprint('validation accuracy 0.31 below the gate 0.90')\nsys.exit(3)",
        "exit code 3: validation accuracy 0.31 below the gate 0.90",
    ),
    "gate_by_message": held(
        py(
            "user_error",
            "import sys\nprint('epoch 1 loss 0.9')\nsys.exit('perplexity 93.1 is above the limit of 40')",
            "perplexity 93.1 is above the limit of 40",
        )
    ),
    "assertion": py(
        "user_error",
        "def check(rows):\n    assert len(rows) > 0, 'no rows: out of memory of the cache is not the cause'\ncheck([])",
        "AssertionError: no rows",
    ),
    "assertion_of_words": held(
        py(
            "user_error",
            "assert 'CUDA out of memory' not in 'log: CUDA out of memory', 'the log has CUDA out of memory in it'",
            "AssertionError: the log has",
        )
    ),
    "label_range": py(
        "user_error",
        "def loss(y):\n    if max(y) > 9:\n        raise ValueError(f'labels must be between 0 and 9, got {max(y)}')\nloss([1, 12])",
        "ValueError: labels must be between 0 and 9, got 12 (train.py:3)",
    ),
    "shapes": py(
        "user_error",
        "import torch\ntorch.ones(2, 3) @ torch.ones(4, 5)",
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5) (train.py:2)",
    ),
    "wrong_dtype": held(py("user_error", "import torch\ntorch.nn.Embedding(4, 4)(torch.ones(2))", "(train.py:2)")),
    "index_in_embedding": held(
        py(
            "user_error",
            "import torch\ntorch.nn.Embedding(4, 4)(torch.tensor([9]))",
            "IndexError: index out of range in self (train.py:2)",
        )
    ),
    "key_error_after_data": py(
        "user_error",
        "for line in ['a corpus line: No space left on device', 'OSError: [Errno 28] No space left on device', 'he said MemoryError']:\n    print(line)\nrow = {}\nrow['text']",
        "KeyError: 'text' (train.py:4)",
    ),
    "value_error_of_words": held(
        py(
            "user_error",
            "raise ValueError('row 7 of the log says: Connection refused, No space left on device')",
            "ValueError: row 7",
        )
    ),
    "key_error_of_a_path": held(py("user_error", "files = {}\nfiles['/data/No such file or directory']", "KeyError")),
    "data_then_gate": py(
        "user_error",
        "import sys\nprint('sample: RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB')\nprint('sample: Segmentation fault (core dumped)')\nprint('F1 0.41 is below 0.5')\nsys.exit(1)",
        "F1 0.41 is below 0.5",
    ),
    "log_lines_of_a_dataset": held(
        py(
            "user_error",
            "import sys\nfor line in ['bash: line 1: module: command not found', 'slurm log: Killed', 'ModuleNotFoundError: No module named x', 'CUDA error: out of memory', 'Permission denied']:\n    print('text:', line)\nprint('accuracy 0.12 is not enough')\nsys.exit(4)",
            "accuracy 0.12 is not enough",
        )
    ),
    "caught_and_other": py(
        "user_error",
        "import sys, traceback\ntry:\n    raise RuntimeError('CUDA out of memory. Tried to allocate 20.00 GiB')\nexcept RuntimeError as error:\n    print(f'{error}, trying a smaller one', file=sys.stderr)\nprint('epoch 1')\nraise ValueError('learning rate schedule needs total_steps')",
        "ValueError: learning rate schedule needs total_steps (train.py:7)",
    ),
    "caught_with_traceback_and_other": py(
        "user_error",
        "import sys, traceback\ntry:\n    raise MemoryError\nexcept MemoryError:\n    traceback.print_exc()\nprint('epoch 1')\n[][3]",
        "IndexError: list index out of range (train.py:7)",
    ),
    "caught_with_traceback_and_gate": held(
        py(
            "user_error",
            "import logging, sys\ntry:\n    raise OSError(28, 'No space left on device')\nexcept OSError:\n    logging.exception('no room for the cache; going on without')\nfor i in range(3): print('epoch', i, 'loss', 0.5)\nprint('accuracy 0.5 is below the gate of 0.9')\nsys.exit(3)",
            "accuracy 0.5 is below",
        )
    ),
    "raised_while_handling": held(
        py(
            "user_error",
            "try:\n    raise RuntimeError('CUDA out of memory. Tried to allocate 20.00 GiB')\nexcept RuntimeError:\n    batch = int('six')",
            "ValueError: invalid literal for int() with base 10: 'six' (train.py:4)",
        )
    ),
    "syntax": py("user_error", "def f(:\n  pass", "SyntaxError: invalid syntax (train.py:1)"),
    "name_error": held(
        py("user_error", "print(learning_rate)", "NameError: name 'learning_rate' is not defined (train.py:1)")
    ),
    "recursion": held(
        py("user_error", "def f(n): return f(n + 1)\nf(0)", "RecursionError: maximum recursion depth exceeded")
    ),
    "group": py(
        "user_error",
        "raise ExceptionGroup('two shards failed', [KeyError('text'), ValueError('shard 5')])",
        "two shards failed",
    ),
    "loader": py(
        "user_error",
        LOADER.format(body="if i == 17: raise ValueError('row 17 has no label')\n        return i"),
        "ValueError: row 17 has no label (train.py:6)",
    ),
    "pool": held(
        py(
            "user_error",
            "import multiprocessing as m\ndef f(x):\n    raise ValueError(f'bad row {x}')\nif __name__ == '__main__':\n    m.Pool(2).map(f, [1])",
            "ValueError: bad row 1 (train.py:3)",
        )
    ),
    "futures": py(
        "user_error",
        "import concurrent.futures as c\ndef f(x):\n    return {}['text']\nif __name__ == '__main__':\n    print(list(c.ProcessPoolExecutor(1).map(f, [1])))",
        "KeyError: 'text' (train.py:3)",
    ),
    "joblib": held(
        py(
            "user_error",
            "from joblib import Parallel, delayed\ndef f(x):\n    raise ValueError(f'fold {x} is empty')\nParallel(n_jobs=2)(delayed(f)(i) for i in range(4))",
            "is empty (train.py:4)",
        )
    ),
    "thread_noise": py(
        "user_error",
        "import threading\ndef f(): raise OSError(28, 'No space left on device')\nt = threading.Thread(target=f); t.start(); t.join()\nraise TypeError('steps must be a number')",
        "TypeError: steps must be a number (train.py:4)",
    ),
    "destructor_noise": py(
        "user_error",
        "class Writer:\n    def __del__(self): raise OSError(28, 'No space left on device')\nw = Writer()\nraise TypeError('steps must be a number')",
        "TypeError: steps must be a number (train.py:4)",
    ),
    "atexit_noise": held(
        py(
            "user_error",
            "import atexit\ndef close(): raise ConnectionResetError(104, 'Connection reset by peer')\natexit.register(close)\nraise TypeError('steps must be a number')",
            "TypeError: steps must be a number (train.py:4)",
        )
    ),
    "hydra": py(
        "user_error",
        "import hydra\n@hydra.main(version_base=None)\ndef main(cfg):\n    raise ValueError('warmup is longer than training')\nmain()",
        "ValueError: warmup is longer than training (train.py:4)",
    ),
    "typer": py(
        "user_error",
        "import typer\nfrom typing import Optional\ndef main(n: int = 3):\n    raise ValueError('warmup is longer than training')\ntyper.run(main)",
        "ValueError: warmup is longer than training (train.py:4)",
    ),
    "rich": held(
        py(
            "user_error",
            "from rich.traceback import install\ninstall()\ndef f():\n    raise ValueError('warmup is longer than training')\nf()",
            "ValueError: warmup is longer than training (train.py:4)",
        )
    ),
    "lightning": held(
        py(
            "user_error",
            "import torch, lightning as L\nclass M(L.LightningModule):\n    def __init__(self): super().__init__(); self.l = torch.nn.Linear(2, 1)\n    def training_step(self, b, i):\n        raise ValueError('no label in this batch')\n    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.1)\nL.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, accelerator='cpu').fit(M(), torch.utils.data.DataLoader(torch.ones(4, 2)))",
            "ValueError: no label in this batch (train.py:5)",
        )
    ),
    "ray": held(
        py(
            "user_error",
            "import ray\nray.init(num_cpus=1, include_dashboard=False)\n@ray.remote\ndef f():\n    raise ValueError('trial 3 has no seed')\nray.get(f.remote())",
            "ValueError: trial 3 has no seed (train.py:5)",
        )
    ),
    "from_another": py(
        "user_error",
        "def f():\n    try:\n        {}['lr']\n    except KeyError as error:\n        raise RuntimeError('the config has no lr') from error\nf()",
        "RuntimeError: the config has no lr (train.py:5)",
    ),
    "estimator": held(
        py(
            "user_error",
            "from sklearn.svm import SVC\nSVC().fit([[1.0], [2.0]], [0, 0])",
            "ValueError: The number of classes has to be greater than one",
        )
    ),
    "rank_0_of_2": ranks(
        "user_error",
        "if rank == 0: raise KeyError('text')\ntime.sleep(60)",
        29611,
        "KeyError: 'text' (train.py:5), in rank 0",
    ),
    "rank_after_init": ranks(
        "user_error",
        "dist.init_process_group('gloo')\nif rank == 1: raise ValueError('rank 1 got no data')\ndist.all_reduce(torch.ones(1))",
        29612,
        "ValueError: rank 1 got no data (train.py:6), in rank 1",
    ),
    "rank_with_caught_oom": held(
        ranks(
            "user_error",
            "dist.init_process_group('gloo')\nprint('rank', rank, 'torch.OutOfMemoryError: CUDA out of memory. Skipping this batch', file=sys.stderr)\nif rank == 1: time.sleep(1); raise TypeError('rank 1 got no data')\ndist.all_reduce(torch.ones(1))",
            29613,
            "TypeError: rank 1 got no data (train.py:7), in rank 1",
        )
    ),
    "accelerate": held(
        Program(
            "user_error",
            "accelerate launch --cpu train.py",
            {
                "train.py": "class Tokenizer:\n    pad_token = None\nif Tokenizer.pad_token is None:\n    raise ValueError('tokenizer.pad_token is not set')"
            },
            "ValueError: tokenizer.pad_token is not set (train.py:4)",
        )
    ),
    "mpi": held(
        Program(
            "user_error",
            "mpirun --allow-run-as-root --oversubscribe -n 2 python3 train.py",
            {
                "train.py": "import os, time\nif os.environ['OMPI_COMM_WORLD_RANK'] == '1': raise ValueError('no shard for rank 1')\ntime.sleep(30)"
            },
            "ValueError: no shard for rank 1 (train.py:2)",
        )
    ),
    "rust": shell(
        "user_error",
        "rustc -o p p.rs && ./p",
        "index out of bounds",
        p__rs='fn main() { let v: Vec<i32> = vec![]; let i = v.len() + 3; println!("{}", v[i]); }',
    ),
    "perl": held(shell("user_error", "perl p.pl", "no model named x", p__pl='die "no model named x";')),
    "node": shell("user_error", "node p.js", "Error: no model named x", p__js='throw new Error("no model named x")'),
    "java": held(
        shell(
            "user_error",
            "java P.java",
            "no model named x",
            P__java='public class P { public static void main(String[] a) { throw new IllegalStateException("no model named x"); } }',
        )
    ),
    "set_e": shell("user_error", 'echo start; test -n "$NO_SUCH_VARIABLE"; echo never', "exit code 1"),
    "unbound": held(
        shell("user_error", "set -u; echo start; echo $NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE: unbound variable")
    ),
    "make": held(
        shell(
            "user_error",
            "make train",
            "labels.csv is empty",
            Makefile='train:\n\t@echo "labels.csv is empty" >&2; exit 2\n',
        )
    ),
    "went_on_after_a_missing_command": py(
        "user_error",
        "import sys\nsys.exit('nothing to train on')",
        "nothing to train on",
        run="set +e; module load cuda; conda activate x; python3 train.py",
    ),
    "stdout_after": held(
        py(
            "user_error",
            "import sys\nprint('Traceback (most recent call last) is what a reader looks for', file=sys.stderr)\nprint('bleu 3.1 is too low')\nsys.exit(5)",
            "bleu 3.1 is too low",
        )
    ),
    "state_dict": held(
        py(
            "user_error",
            "import torch\ntorch.nn.Linear(2, 2).load_state_dict({'w': torch.ones(1)})",
            "RuntimeError: Error(s) in loading state_dict for Linear",
        )
    ),
    "json": py("user_error", "import json\njson.loads('{\"lr\": 0.1,}')", "JSONDecodeError"),
    "attribute": held(py("user_error", "import numpy\nnumpy.float_(3)", "AttributeError")),
    "subprocess_of_a_script": py(
        "user_error",
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'raise ValueError(\"shard 3 is empty\")'], check=True)",
        "ValueError: shard 3 is empty",
    ),
    # -- memory -------------------------------------------------------------------------------------------------
    "numpy_memory": py(
        "out_of_memory", "import numpy\nnumpy.zeros(1 << 50, dtype='u1')", "Unable to allocate 1.00 PiB"
    ),
    "numpy_memory_long_cleanup": Program(
        "out_of_memory",
        f"python3 train.py || {{ {LONG_CLEANUP}; exit 1; }}",
        {"train.py": "import numpy\nnumpy.zeros(1 << 50, dtype='u1')"},
        "Unable to allocate",
    ),
    "torch_host_memory": py("out_of_memory", "import torch\ntorch.zeros(1 << 48)", "DefaultCPUAllocator"),
    "bytearray": held(py("out_of_memory", "bytearray(1 << 50)", "MemoryError (train.py:1)")),
    "bad_alloc": held(
        shell(
            "out_of_memory",
            "g++ -o p p.cpp && ./p",
            "std::bad_alloc",
            p__cpp="#include <vector>\nint main() { std::vector<char> v(1ul << 50); return v[3]; }",
        )
    ),
    "node_heap": shell(
        "out_of_memory",
        "node --max-old-space-size=16 -e 'let a = []; for (;;) a.push({x: a.length})'",
        "heap out of memory",
    ),
    "java_heap": held(
        shell(
            "out_of_memory",
            "java -Xmx16m P.java",
            "OutOfMemoryError",
            P__java="public class P { public static void main(String[] a) { long[] x = new long[1 << 28]; System.out.println(x[3]); } }",
        )
    ),
    "rust_alloc": held(
        shell(
            "out_of_memory",
            "rustc -o p p.rs && ./p",
            "memory allocation of",
            p__rs='fn main() { let v: Vec<u8> = Vec::with_capacity(1 << 50); println!("{}", v.capacity()); }',
        )
    ),
    "perl_memory": shell(
        "out_of_memory",
        "ulimit -v 100000; perl -e 'my $n = 1 << 40; $x = \"x\" x $n; print length $x'",
        "Out of memory",
    ),
    "fork_memory": held(py("out_of_memory", "import mmap\nmmap.mmap(-1, 1 << 46)", "Cannot allocate memory")),
    "arrow_memory": held(py("out_of_memory", "import pyarrow\npyarrow.allocate_buffer(1 << 50)", "ArrowMemoryError")),
    "jax_cpu_memory": held(
        py(
            "out_of_memory",
            "import jax.numpy as j\nj.zeros(1 << 48, dtype='float32').sum().block_until_ready()",
            "RESOURCE_EXHAUSTED",
        )
    ),
    # -- shared memory ---------------------------------------------------------------------------------------------
    "small_shm": Program(
        "shared_memory_full",
        mounted(SMALL_SHM, "python3 train.py"),
        {"train.py": LOADER.format(body="return torch.zeros(1 << 20)")},
        "shared memory",
    ),
    "semaphore": held(
        Program(
            "shared_memory_full",
            mounted(
                SMALL_SHM,
                "head -c 3000000 /dev/zero > /dev/shm/x || true; python3 -c 'import multiprocessing; multiprocessing.Lock()'",
            ),
            {},
            "",
        )
    ),
    "shared_block": Program(
        "shared_memory_full",
        mounted(SMALL_SHM, "python3 train.py"),
        {
            "train.py": "from multiprocessing import shared_memory as s\nb = s.SharedMemory(create=True, size=8 << 20)\nb.buf[:] = bytes(8 << 20)"
        },
        "",
    ),
    "torch_shared_tensor": held(
        Program(
            "shared_memory_full",
            mounted(SMALL_SHM, "head -c 3000000 /dev/zero > /dev/shm/x || true; python3 train.py"),
            {
                "train.py": "import torch\ntorch.multiprocessing.set_sharing_strategy('file_system')\ntorch.zeros(1 << 20).share_memory_()"
            },
            "",
        )
    ),
    # -- GPU, without one ------------------------------------------------------------------------------------------
    "torch_no_gpu": py("gpu_not_found", "import torch\ntorch.zeros(1).cuda()", "Torch not compiled with CUDA enabled"),
    "numba_no_gpu": held(py("gpu_not_found", "from numba import cuda\ncuda.device_array(3)", "")),
    "jax_no_gpu": py("gpu_not_found", "import os\nos.environ['JAX_PLATFORMS'] = 'cuda'\nimport jax\njax.devices()", ""),
    "nvcc_no_gpu": held(
        shell(
            "gpu_not_found",
            "nvcc -o p p.cu && ./p",
            "CUDA driver version is insufficient",
            p__cu='#include <cstdio>\nint main() { void *p; cudaError_t e = cudaMalloc(&p, 1); if (e) { fprintf(stderr, "CUDA error: %s\\n", cudaGetErrorString(e)); return 1; } }',
        )
    ),
    "checkpoint_of_a_gpu": held(
        Program(
            "gpu_not_found",
            "python3 train.py",
            {
                "train.py": "import io, torch\nb = io.BytesIO(); torch.save(torch.ones(2), b)\nraw = b.getvalue().replace(b'cpuq', b'cudaq')\nimport pickle, zipfile\nclass S: pass\ntorch.serialization._validate_device(torch.device('cuda:0'), 'cuda')"
            },
            "Attempting to deserialize object on",
        )
    ),
    "lightning_no_gpu": held(py("gpu_not_found", "import lightning as L\nL.Trainer(accelerator='gpu', devices=2)", "")),
    # -- modules, files, libraries, commands ---------------------------------------------------------------------
    "module": py("missing_module", "import flash_attn", "No module named 'flash_attn' (train.py:1)"),
    "submodule": held(py("missing_module", "import numpy.nonesuch.deep", "No module named 'numpy.nonesuch'")),
    "module_by_m": held(shell("missing_module", "python3 -m deepspeed_nope.launch train.py", "deepspeed_nope")),
    "module_tried_twice": held(
        py(
            "missing_module",
            "try:\n    import ujson_nope as json\nexcept ImportError:\n    import simplejson_nope as json",
            "No module named 'simplejson_nope' (train.py:4)",
        )
    ),
    "name_in_module": py(
        "missing_module", "from transformers import NoSuchTrainer", "cannot import name 'NoSuchTrainer'"
    ),
    "node_module": held(
        shell("missing_module", "node -e 'require(\"left-pad-nope\")'", "Cannot find module 'left-pad-nope'")
    ),
    "perl_module": shell("missing_module", "perl -e 'use Nope::Nope;'", "Can't locate Nope/Nope.pm"),
    "file": py("missing_file", "open('data/train_2024.csv')", "'data/train_2024.csv' (train.py:1)"),
    "pandas_file": held(
        py(
            "missing_file",
            "import pandas\npandas.read_csv('data/train_2024.csv')",
            "'data/train_2024.csv' (train.py:2)",
        )
    ),
    "script": held(shell("missing_file", "python3 trian.py --epochs 3", "trian.py")),
    "cat": held(shell("missing_file", "cat data/labels.txt | sort > out.txt", "data/labels.txt: No such file")),
    "cp": shell("missing_file", "cp data/labels.txt /tmp/", "'data/labels.txt'"),
    "h5_file": held(py("missing_file", "import h5py\nh5py.File('data/train.h5')", "data/train.h5")),
    "source_file": shell(
        "missing_file", "source /opt/venv-nope/bin/activate\npython3 train.py", "/opt/venv-nope/bin/activate"
    ),
    "bash_of_no_script": held(shell("missing_file", "bash train.sh", "train.sh: No such file")),
    "not_a_directory": py("missing_file", "open('/etc/passwd/x')", "NotADirectoryError"),
    "numpy_file": held(py("missing_file", "import numpy\nnumpy.load('features.npy')", "features.npy")),
    "library": py(
        "missing_library", "import ctypes\nctypes.CDLL('libcudnn_ops_infer.so.8')", "libcudnn_ops_infer.so.8"
    ),
    "library_of_a_program": held(
        shell(
            "missing_library",
            "gcc -shared -o libnope.so -x c /dev/null && gcc -o p p.c -Wl,--no-as-needed -L. -lnope && rm libnope.so && ./p",
            "libnope.so",
            p__c="int main(){return 0;}",
        )
    ),
    "symbol": held(
        py(
            "missing_library",
            "import subprocess, ctypes\nsubprocess.run('gcc -shared -fPIC -o b.so b.c', shell=True, check=True)\nimport sys, importlib.util as u\nctypes.CDLL('./b.so', mode=2)",
            "undefined symbol: nope_v2",
            run="echo 'extern int nope_v2(void); int (*p)(void) = nope_v2;' > b.c; python3 train.py",
        )
    ),
    "module_command": shell(
        "command_not_found", "module load cuda/12.4\npython3 train.py", "module: command not found"
    ),
    "conda_command": held(
        shell("command_not_found", "conda activate torch\npython3 train.py", "conda: command not found")
    ),
    "dash": held(shell("command_not_found", "dash run_dash.sh", "module: not found", run_dash__sh="module load cuda")),
    "zsh": shell("command_not_found", "zsh go.zsh", "command not found: conda", go__zsh="conda activate x\n"),
    "fish": held(shell("command_not_found", "fish go.fish", "conda", go__fish="conda activate x\n")),
    "tcsh": held(shell("command_not_found", "tcsh go.csh", "conda: Command not found", go__csh="conda activate x\n")),
    "env_interpreter": held(
        shell("command_not_found", "chmod +x t.py; ./t.py", "python2.4", t__py="#!/usr/bin/env python2.4\nprint(1)\n")
    ),
    "crlf": shell("command_not_found", "chmod +x t.sh; ./t.sh", "", t__sh="#!/bin/bash\r\necho hi\r\n"),
    "crlf_env": held(
        shell("command_not_found", "chmod +x t.sh; ./t.sh", "bash\\r", t__sh="#!/usr/bin/env bash\r\necho hi\r\n")
    ),
    "crlf_by_bash": held(
        shell(
            "command_not_found", "bash t.sh", "$'\\r': command not found", t__sh="echo hi\r\n\r\nset -e\r\nexit 127\n"
        )
    ),
    "subprocess_command": held(
        py(
            "command_not_found",
            "import subprocess\nsubprocess.run(['ffmpeg-nope', '-i', 'x.mp4'], check=True)",
            "ffmpeg-nope",
        )
    ),
    "subprocess_shell": py(
        "command_not_found",
        "import subprocess\nsubprocess.run('nvidia-smi-nope -L', shell=True, check=True)",
        "nvidia-smi-nope",
    ),
    "exec_format": held(
        shell("command_not_found", "chmod +x t; ./t", "Exec format error", t="\x7fELF" + "\x02\x01\x01" + "\x00" * 60)
    ),
    # -- permission ------------------------------------------------------------------------------------------------
    "not_executable": shell("permission_denied", "./s.sh", "./s.sh: Permission denied", s__sh="echo hi\n"),
    "permission": held(
        Program(
            "permission_denied",
            f"chmod a+rX . ..; {NOBODY} /usr/bin/python3 train.py",
            {"train.py": "open('/root/x', 'w')"},
            "'/root/x'",
        )
    ),
    "mkdir": held(Program("permission_denied", f"{NOBODY} mkdir -p /data-nope/outputs", {}, "Permission denied")),
    "read_only": held(
        Program(
            "permission_denied",
            "mkdir ro; mount -t tmpfs -o ro tmpfs ro; python3 train.py",
            {"train.py": "open('ro/x', 'w')"},
            "Read-only file system",
        )
    ),
    "torch_save_denied": Program(
        "permission_denied",
        "mkdir ro; mount -t tmpfs -o ro tmpfs ro; python3 train.py",
        {"train.py": "import torch\ntorch.save({'a': torch.ones(3)}, 'ro/c.pt')"},
        "",
    ),
    # -- arguments -------------------------------------------------------------------------------------------------
    "argparse": py(
        "bad_arguments",
        "import argparse\np = argparse.ArgumentParser(); p.add_argument('--lr', type=float, required=True); p.parse_args()",
        "expected one argument",
        run="python3 train.py --lr",
    ),
    "argparse_choice": held(
        py(
            "bad_arguments",
            "import argparse\np = argparse.ArgumentParser(); p.add_argument('--opt', choices=['sgd', 'adam']); p.parse_args()",
            "invalid choice: 'lion'",
            run="python3 train.py --opt lion",
        )
    ),
    "click": py(
        "bad_arguments",
        "import click\n@click.command()\n@click.option('--lr', required=True)\ndef f(lr): pass\nf()",
        "Missing option '--lr'",
    ),
    "typer_option": held(
        py(
            "bad_arguments",
            "import typer\ndef main(n: int): pass\ntyper.run(main)",
            "No such option: --epochs",
            run="python3 train.py --epochs 3",
        )
    ),
    "hydra_override": held(
        py(
            "bad_arguments",
            "import hydra\n@hydra.main(version_base=None)\ndef main(cfg): pass\nmain()",
            "lr",
            run="python3 train.py lr=3",
        )
    ),
    "ls_option": held(shell("bad_arguments", "ls --nonesuch", "unrecognized option '--nonesuch'")),
    "absl": held(
        py(
            "bad_arguments",
            "from absl import app, flags\napp.run(lambda argv: None)",
            "Unknown command line flag 'lrate'",
            run="python3 train.py --lrate=3",
        )
    ),
    "hf_arguments": held(
        py(
            "bad_arguments",
            "from transformers import HfArgumentParser, TrainingArguments\nHfArgumentParser(TrainingArguments).parse_args_into_dataclasses()",
            "--learning_rte",
            run="python3 train.py --output_dir x --learning_rte 3",
        )
    ),
    "torchrun_option": held(
        Program("bad_arguments", "python3 -m torch.distributed.run --nprocs 2 train.py", {"train.py": "pass"}, "")
    ),
    # -- limits of the system --------------------------------------------------------------------------------------
    "open_files": py(
        "system_limit",
        "x = [open('/dev/null') for i in range(100000)]",
        "Too many open files",
        run="ulimit -n 64; python3 train.py",
    ),
    "open_files_of_torch": held(
        Program(
            "system_limit",
            "ulimit -n 40; python3 train.py",
            {
                "train.py": LOADER.format(body="return torch.zeros(100)")
                .replace("for batch in", "kept = []\n    for batch in")
                .replace("batch_size=4", "batch_size=1")
                .replace(": pass\n", ": kept.append(batch)\n")
            },
            "",
        )
    ),
    "threads": py(
        "system_limit",
        "import threading, time\nfor i in range(100000): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
        "can't start new thread",
        run=f"chmod a+rX . ..; {NOBODY} sh -c 'ulimit -u 20; exec /usr/bin/python3 train.py'",
    ),
    "processes": held(
        shell(
            "system_limit", NOBODY + " bash -c 'ulimit -u 5; for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait'", ""
        )
    ),
    "file_size": held(shell("system_limit", "ulimit -f 100; head -c 1000000 /dev/zero > big", "")),
    "cpu_time": held(py("system_limit", "while True: pass", "", run="ulimit -St 1; python3 train.py")),
    "arguments_too_long": held(shell("system_limit", "ls $(seq 1 1000000)", "Argument list too long")),
    # -- ends by a signal ------------------------------------------------------------------------------------------
    "segv": shell("crash", "gcc -o p p.c && ./p", "SIGSEGV", p__c="int main(){int *p = 0; return *p;}"),
    "segv_python": held(
        py(
            "crash",
            "import ctypes, faulthandler\nfaulthandler.enable()\ndef f():\n    ctypes.string_at(0)\nf()",
            "Segmentation fault",
        )
    ),
    "double_free": held(
        shell(
            "crash",
            "gcc -w -o p p.c && ./p",
            "free(): double free detected",
            p__c="#include <stdlib.h>\nint main(){char *p = malloc(9); free(p); free(p); return 0;}",
        )
    ),
    "assert_in_c": shell(
        "crash",
        "gcc -o p p.c && ./p",
        "Assertion `n > 0' failed",
        p__c="#include <assert.h>\nint main(int n, char **v){n = 0; assert(n > 0); return 0;}",
    ),
    "terminate": held(
        shell(
            "crash",
            "g++ -o p p.cpp && ./p",
            "no shard",
            p__cpp='#include <stdexcept>\nint main() { throw std::runtime_error("no shard"); }',
        )
    ),
    "ill": held(py("crash", "import os, signal\nos.kill(os.getpid(), signal.SIGILL)", "SIGILL")),
    "bus": held(
        py(
            "crash",
            "import mmap, os\nf = open('x', 'w+b'); f.truncate(8192)\nm = mmap.mmap(f.fileno(), 8192); f.truncate(0); m[5000]",
            "SIGBUS",
        )
    ),
    "worker_segv": held(
        Program(
            "crash",
            "python3 train.py",
            {"train.py": LOADER.format(body="import ctypes; ctypes.string_at(0)")},
            "Segmentation fault",
        )
    ),
    "killed": shell("interrupted", "bash -c 'kill -KILL $$'", "SIGKILL"),
    "worker_killed": Program(
        "interrupted",
        "python3 train.py",
        {"train.py": LOADER.format(body="import os; os.kill(os.getpid(), 9)")},
        "is killed by signal: Killed",
    ),
    "pool_worker_killed": held(
        py(
            "crash",
            "import concurrent.futures as c, os\n# Its parent prints nothing of the signal.\ndef f(x): os.kill(os.getpid(), 15)\nif __name__ == '__main__':\n    print(list(c.ProcessPoolExecutor(1).map(f, [1])))",
            "",
        )
    ),
    "rank_killed": held(
        ranks("interrupted", "if rank == 1: time.sleep(1); os.kill(os.getpid(), 9)\ntime.sleep(60)", 29615, "rank 1")
    ),
    "rank_segv": ranks(
        "crash", "import ctypes\nif rank == 1: time.sleep(1); ctypes.string_at(0)\ntime.sleep(60)", 29616, "rank 1"
    ),
    "sigint": py(
        "interrupted",
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)",
        "KeyboardInterrupt",
    ),
    "sigterm": held(shell("interrupted", "bash -c 'kill -TERM $$'", "SIGTERM")),
    # -- files that are damaged ------------------------------------------------------------------------------------
    "zip": py(
        "corrupt_file",
        "import zipfile\nopen('d.zip', 'wb').write(b'PK' + b'x' * 999)\nzipfile.ZipFile('d.zip')",
        "BadZipFile",
    ),
    "gzip": held(
        shell(
            "corrupt_file",
            "head -c 5000 /dev/urandom | gzip > d.gz; head -c 3000 d.gz > e.gz; gunzip e.gz",
            "unexpected end of file",
        )
    ),
    "tar": held(
        shell("corrupt_file", "head -c 50000 /dev/urandom > d.tar; tar -xf d.tar", "does not look like a tar archive")
    ),
    "gzip_python": held(
        py(
            "corrupt_file",
            "import gzip\nopen('d.gz', 'wb').write(gzip.compress(b'x' * 9999)[:20])\ngzip.open('d.gz').read()",
            "EOFError",
        )
    ),
    "torch_truncated": py(
        "corrupt_file",
        "import torch\ntorch.save(torch.ones(9999), 'c.pt')\nopen('c.pt', 'r+b').truncate(20000)\ntorch.load('c.pt')",
        "OSError: [Errno 22] Invalid argument (train.py:4)",
    ),
    "safetensors": held(
        py(
            "corrupt_file",
            "from safetensors.torch import load_file\nopen('m.safetensors', 'wb').write(b'version https://git-lfs.github.com/spec/v1\\noid sha256:ab\\n')\nload_file('m.safetensors')",
            "SafetensorError",
        )
    ),
    "pickle": py(
        "corrupt_file",
        "import pickle\nopen('d.pkl', 'wb').write(pickle.dumps(list(range(999)))[:500])\npickle.load(open('d.pkl', 'rb'))",
        "pickle data was truncated",
    ),
    "pickle_empty": held(
        py(
            "corrupt_file",
            "import pickle\nopen('d.pkl', 'wb')\npickle.load(open('d.pkl', 'rb'))",
            "EOFError: Ran out of input",
        )
    ),
    "torch_not_a_checkpoint": held(
        py(
            "corrupt_file",
            "import torch\nopen('c.pt', 'w').write('version https://git-lfs.github.com/spec/v1')\ntorch.load('c.pt', weights_only=False)",
            "invalid load key, 'v'",
        )
    ),
    "parquet": held(
        py(
            "corrupt_file",
            "import pandas\nopen('d.parquet', 'wb').write(b'x' * 999)\npandas.read_parquet('d.parquet')",
            "Parquet magic bytes not found",
        )
    ),
    "image": py(
        "corrupt_file",
        "from PIL import Image\nopen('d.png', 'wb').write(b'x' * 999)\nImage.open('d.png')",
        "cannot identify image file",
    ),
    "image_truncated": held(
        py(
            "corrupt_file",
            "from PIL import Image\nimport numpy\nImage.fromarray(numpy.random.randint(0, 255, (99, 99, 3), dtype='uint8')).save('d.jpg')\nopen('d.jpg', 'r+b').truncate(2000)\nImage.open('d.jpg').load()",
            "image file is truncated",
        )
    ),
    "h5_truncated": held(
        py(
            "corrupt_file",
            "import h5py\nf = h5py.File('d.h5', 'w'); f['x'] = list(range(9999)); f.close()\nopen('d.h5', 'r+b').truncate(3000)\nh5py.File('d.h5')",
            "truncated file",
        )
    ),
    "sqlite": held(
        py(
            "corrupt_file",
            "import sqlite3\nopen('d.db', 'wb').write(b'x' * 9999)\nsqlite3.connect('d.db').execute('select * from t')",
            "file is not a database",
        )
    ),
    "zlib": py("corrupt_file", "import zlib\nzlib.decompress(b'x' * 99)", "incorrect header check"),
    # -- the network -----------------------------------------------------------------------------------------------
    "dns": py("network", "import urllib.request\nurllib.request.urlopen('https://data.example.invalid/train.tar')", ""),
    "requests_dns": held(
        py("network", "import requests\nrequests.get('https://data.example.invalid/train.tar')", "data.example.invalid")
    ),
    "requests_refused": py("network", "import requests\nrequests.get('http://127.0.0.1:9/x')", "Connection refused"),
    "curl": held(
        shell("network", "curl -fsS https://data.example.invalid/train.tar -o train.tar", "Could not resolve host")
    ),
    "wget": held(
        shell(
            "network",
            "wget -q https://data.example.invalid/train.tar || wget https://data.example.invalid/train.tar",
            "data.example.invalid",
        )
    ),
    "git": held(shell("network", "git clone https://git.example.invalid/me/code.git", "Could not resolve host")),
    "read_timeout": held(
        py(
            "network",
            "import requests, socket\ns = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\nrequests.get('http://127.0.0.1:%d' % s.getsockname()[1], timeout=1)",
            "Read timed out",
        )
    ),
    "hub": held(
        py(
            "network",
            "import os\nos.environ['HF_ENDPOINT'] = 'http://127.0.0.1:9'\nfrom transformers import AutoModel\nAutoModel.from_pretrained('bert-base-uncased')",
            "",
        )
    ),
    "socket": held(py("network", "import socket\nsocket.create_connection(('127.0.0.1', 9))", "Connection refused")),
    "http_503": py(
        "network",
        HTTP.format(code=503, more="pass") + "import urllib.request\nurllib.request.urlopen(url + '/data.tar')",
        "HTTP Error 503",
    ),
    "tls": held(
        py(
            "network",
            "import urllib.request, ssl, socket, threading, subprocess\nsubprocess.run('openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -subj /CN=localhost -days 2', shell=True, check=True, capture_output=True)\nc = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); c.load_cert_chain('c.pem', 'k.pem')\ns = c.wrap_socket(socket.create_server(('127.0.0.1', 0)), server_side=True)\ndef serve():\n    try: s.accept()\n    except OSError: pass\nthreading.Thread(target=serve, daemon=True).start()\nurllib.request.urlopen('https://localhost:%d' % s.getsockname()[1])",
            "CERTIFICATE_VERIFY_FAILED",
        )
    ),
    # -- credentials -----------------------------------------------------------------------------------------------
    "http_401": py(
        "credentials",
        HTTP.format(code=401, more="pass") + "import requests\nrequests.get(url + '/model.bin').raise_for_status()",
        "401 Client Error",
    ),
    "http_403": held(
        py(
            "credentials",
            HTTP.format(code=403, more="pass") + "import urllib.request\nurllib.request.urlopen(url + '/model.bin')",
            "HTTP Error 403",
        )
    ),
    "git_401": held(
        py(
            "credentials",
            HTTP.format(code=401, more="self.send_header('WWW-Authenticate', 'Basic realm=x')")
            + "import subprocess\nsys.exit(subprocess.run(['git', 'clone', url + '/me/code.git']).returncode)",
            "",
            run="GIT_TERMINAL_PROMPT=0 python3 train.py",
        )
    ),
    "hub_401": held(
        py(
            "credentials",
            HTTP.format(
                code=401, more="self.send_header('X-Error-Message', 'Invalid credentials in Authorization header')"
            )
            + "import os\nos.environ['HF_ENDPOINT'] = url\nfrom huggingface_hub import hf_hub_download\nhf_hub_download('me/private', 'config.json')",
            "401",
        )
    ),
    "hub_gated": held(
        py(
            "credentials",
            HTTP.format(code=403, more="self.send_header('X-Error-Code', 'GatedRepo')")
            + "import os\nos.environ['HF_ENDPOINT'] = url\nfrom transformers import AutoTokenizer\nAutoTokenizer.from_pretrained('meta-llama/Llama-2-7b-hf')",
            "gated repo",
        )
    ),
    "curl_403": held(
        py(
            "credentials",
            HTTP.format(code=403, more="pass")
            + "import subprocess\nsys.exit(subprocess.run(['curl', '-fsS', url + '/x']).returncode)",
            "403",
        )
    ),
    # -- the disk --------------------------------------------------------------------------------------------------
    "torch_save_full": Program(
        "disk_full",
        mounted(FULL, "python3 train.py"),
        {"train.py": "import torch\ntorch.save(torch.ones(1 << 20), 'full/c.pt')"},
        "",
    ),
    "python_full": Program(
        "disk_full",
        mounted(FULL, "python3 train.py"),
        {"train.py": "open('full/x', 'wb', 0).write(bytes(1 << 20)) and open('full/y', 'wb').write(bytes(1 << 20))"},
        "No space left on device",
    ),
    "cp_full": Program(
        "disk_full", mounted(FULL, "head -c 1000000 /dev/zero > x; cp x full/"), {}, "No space left on device"
    ),
    "numpy_full": held(
        Program(
            "disk_full",
            mounted(FULL, "python3 train.py"),
            {"train.py": "import numpy\nnumpy.save('full/x.npy', numpy.zeros(1 << 20))"},
            "",
        )
    ),
    "h5_full": held(
        Program(
            "disk_full",
            mounted(FULL, "python3 train.py"),
            {
                "train.py": "import h5py, numpy\nf = h5py.File('full/x.h5', 'w'); f['x'] = numpy.random.rand(1 << 20); f.close()"
            },
            "",
        )
    ),
    "sqlite_full": held(
        Program(
            "disk_full",
            mounted(FULL, "python3 train.py"),
            {
                "train.py": "import sqlite3\nc = sqlite3.connect('full/x.db'); c.execute('create table t (x)')\nc.executemany('insert into t values (?)', [('x' * 1000,)] * 2000); c.commit()"
            },
            "disk is full",
        )
    ),
    "safetensors_full": held(
        Program(
            "disk_full",
            mounted(FULL, "python3 train.py"),
            {
                "train.py": "import torch\nfrom safetensors.torch import save_file\nsave_file({'x': torch.ones(1 << 20)}, 'full/m.safetensors')"
            },
            "",
        )
    ),
    "tar_full": held(
        Program("disk_full", mounted(FULL, "head -c 1000000 /dev/urandom > x; tar -cf full/x.tar x"), {}, "")
    ),
    "pandas_full": held(
        Program(
            "disk_full",
            mounted(FULL, "python3 train.py"),
            {"train.py": "import pandas\npandas.DataFrame({'x': range(1 << 18)}).to_csv('full/x.csv')"},
            "No space left on device",
        )
    ),
    "parquet_full": held(
        Program(
            "disk_full",
            mounted(FULL, "python3 train.py"),
            {
                "train.py": "import pandas, numpy\npandas.DataFrame({'x': numpy.random.rand(1 << 18)}).to_parquet('full/x.parquet')"
            },
            "",
        )
    ),
    # -- between processes -----------------------------------------------------------------------------------------
    "port": ranks("communication", "dist.init_process_group('gloo')", 29617, "29617")._replace(
        run="python3 -m http.server 29617 --bind 0.0.0.0 > /dev/null 2>&1 & sleep 2; trap 'kill %1' EXIT; "
        + TORCHRUN.format(port=29617)
    ),
    "port_of_python": held(
        py(
            "communication",
            "import socket\na = socket.create_server(('127.0.0.1', 29618)); socket.create_server(('127.0.0.1', 29618))",
            "Address already in use",
        )
    ),
    "gloo_peer_gone": held(
        ranks(
            "communication",
            "dist.init_process_group('gloo', timeout=datetime.timedelta(seconds=8))\nif rank == 1: time.sleep(20)\nelse: dist.barrier()",
            29619,
            "",
        )
    ),
    "rendezvous": Program(
        "communication",
        "python3 -m torch.distributed.run --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:29699 --rdzv-conf timeout=3,join_timeout=3,is_host=0 train.py",
        {"train.py": "pass"},
        "",
    ),
    "store_timeout": held(
        Program(
            "communication",
            "MASTER_ADDR=127.0.0.1 MASTER_PORT=29620 RANK=0 WORLD_SIZE=2 python3 train.py",
            {
                "train.py": "import datetime, torch.distributed as d\nd.init_process_group('gloo', timeout=datetime.timedelta(seconds=3))"
            },
            "",
        )
    ),
    "store_refused": held(
        Program(
            "communication",
            "MASTER_ADDR=127.0.0.1 MASTER_PORT=29621 RANK=1 WORLD_SIZE=2 python3 train.py",
            {
                "train.py": "import datetime, torch.distributed as d\nd.init_process_group('gloo', timeout=datetime.timedelta(seconds=3))"
            },
            "",
        )
    ),
    # -- numbers ---------------------------------------------------------------------------------------------------
    "anomaly": py(
        "not_a_number",
        "import torch\ntorch.autograd.set_detect_anomaly(True)\nx = torch.zeros(1, requires_grad=True)\n(torch.sqrt(x) * 0).sum().backward()",
        "returned nan values in its 0th output",
    ),
    "loss_is_nan": py(
        "not_a_number",
        "import sys\nfor step in range(3): print('step', step, 'loss', 0.3)\nprint('Loss is nan, stopping training')\nsys.exit(1)",
        "Loss is nan, stopping training",
    ),
    "nan_in_data": held(
        py(
            "not_a_number",
            "from sklearn.linear_model import LinearRegression\nLinearRegression().fit([[float('nan')], [1]], [1, 2])",
            "Input X contains NaN",
        )
    ),
    "jax_nan": held(
        py(
            "not_a_number",
            "import jax\njax.config.update('jax_debug_nans', True)\nimport jax.numpy as j\nj.log(j.zeros(1) - 1)",
            "invalid value (nan)",
        )
    ),
    "distribution": held(
        py(
            "not_a_number",
            "import torch\ntorch.distributions.Normal(torch.tensor([float('nan')]), 1.0)",
            "ValueError: Expected parameter loc",
        )
    ),
    "nan_by_hand": held(
        py(
            "not_a_number",
            "import math\nloss = float('nan')\nif not math.isfinite(loss): raise ValueError(f'loss is {loss} at step 120')",
            "ValueError: loss is nan at step 120",
        )
    ),
    "nan_to_integer": held(py("not_a_number", "int(float('nan'))", "cannot convert float NaN to integer")),
}


def run(name: str, folder: Path) -> dict[str, object]:
    """Run a program, and return what is kept of it."""
    program = PROGRAMS[name]
    code = folder / name / "code"
    code.mkdir(parents=True)
    for file, text in program.files.items():
        (code / file).write_text(text, encoding="latin-1", newline="")
    script = folder / name / "run.sh"
    script.write_text(f"set -eo pipefail\n{program.run}\n")
    out = folder / name / "out"
    env = {
        "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
        "HOME": str(folder / name),
        "PYTHONUNBUFFERED": "1",
        "LANG": "C.UTF-8",
        **{name: os.environ[name] for name in ("CARGO_HOME", "RUSTUP_HOME") if name in os.environ},
    }
    with out.open("wb") as output:
        command = ["unshare", "--mount", "bash", str(script)]
        done = subprocess.run(
            command,
            cwd=code,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=300,
            check=False,
            preexec_fn=_with_usual_signals,
        )
    text = out.read_text(errors="replace")
    for path, neutral in ((sys.prefix, "/home/me/venv"), (sys.base_prefix, "/usr"), (str(folder), "/home/me/ml-jobs")):
        text = text.replace(path, neutral)
    text = text.replace(_CLEANUP_LINES, _CLEANUP_MARK)
    code_of_shell = done.returncode if done.returncode >= 0 else 128 - done.returncode
    kept: dict[str, object] = {"name": name, "kind": program.kind, "exit": code_of_shell}
    kept["says"], kept["output"] = program.says, text
    if program.held_out:
        kept["held_out"] = True
    return kept


def _with_usual_signals() -> None:
    """A shell's background jobs ignore SIGINT, and hand that on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> None:
    """Run the programs that are named, or all, and put what they print into ``real.jsonl``."""
    folder, names = Path(sys.argv[1]), sys.argv[2:] or list(PROGRAMS)
    path = HERE / "real.jsonl"
    found = {row["name"]: row for row in map(json.loads, path.read_text().splitlines())} if path.exists() else {}
    for name in names:
        found[name] = run(name, folder)
        sys.stdout.write(f"{name}: exit code {found[name]['exit']}\n")
        rows = [found[name] for name in PROGRAMS if name in found]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
