"""Settings of Keras and TensorFlow in a user's home and environment: removed before they load.

A result depends on the config, the data and the software alone. Keras reads `~/.keras/keras.json`
(backend, channels first or last, float type, epsilon) and writes one where there is none; KERAS_BACKEND
and KERAS_MAX_EPOCHS change what runs. TensorFlow has some 150 switches, of which many change numbers:
TF_ENABLE_ONEDNN_OPTS, TF_SET_ONEDNN_FPMATH_MODE and NVIDIA_TF32_OVERRIDE the rounding, TF_XLA_FLAGS and
TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_* the operations, TF_USE_LEGACY_KERAS the Keras. So all variables that
begin with one of PREFIXES are removed, but those that only say where to compute, how much memory to take and
what to log.
"""

from __future__ import annotations

import os
from typing import MutableMapping

PREFIXES = (
    "KERAS_", "TF_", "TF2_", "XLA_", "MLIR_", "ONEDNN_", "DNNL_", "MKLDNN_", "ZENDNN_", "CUBLAS_",
    "CUBLASLT_", "CUDNN_", "NVIDIA_TF32_",
)  # fmt: skip
KEPT = {
    "TF_CPP_MIN_LOG_LEVEL", "TF_CPP_MAX_VLOG_LEVEL", "TF_CPP_VMODULE", "TF_GPU_ALLOCATOR",
    "TF_FORCE_GPU_ALLOW_GROWTH", "TF_FORCE_UNIFIED_MEMORY", "TF_GPU_HOST_MEM_LIMIT_IN_MB",
    "TF_PER_DEVICE_MEMORY_LIMIT_MB", "TF_CUDA_PATHS", "CUDNN_LOGINFO_DBG", "CUDNN_LOGDEST_DBG",
}  # fmt: skip
TERRAFORM = ("TF_CLI_", "TF_VAR_", "TF_LOG")  # another program's, which many environments have
# /dev/null is no folder: Keras finds no settings there and can write none. TensorFlow sets the other one.
NOTED = "XTCAV_NOT_USED"
OURS = {"KERAS_HOME": "/dev/null", "TF2_BEHAVIOR": "1"}


def settle(environ: MutableMapping[str, str]) -> list[str]:
    """Remove from `environ` what changes results; returns the names of what was set, sorted.

    They are noted under NOTED, for the process to tell that this one may become (see common/start.py).
    """
    dropped = [
        name
        for name, value in environ.items()
        if name.startswith(PREFIXES)
        and not (name.startswith(TERRAFORM) or name in KEPT or value == OURS.get(name))
    ]
    for name in dropped:
        del environ[name]
    environ["KERAS_HOME"] = OURS["KERAS_HOME"]
    environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if dropped:
        environ[NOTED] = ", ".join(sorted(dropped))
    return sorted(dropped)


settle(os.environ)  # when `train` is first imported, so before anything of it loads Keras
