"""`benchmarks.masked_cpuid`: what runs under it is, for all that ask CPUID, on a processor without VNNI."""

import os
import platform
import shutil
import signal
import subprocess
import sys

import pytest
from benchmarks.masked_cpuid import KINDS, masked

# A product of uint8 255 with int8 127, twice: 64770, or 32767 where the pair is added in 16 bits. And who asks CPUID:
# fewbits, torch, NumPy, and all that again in a thread and in a process started from here.
PRODUCT = """
import os, subprocess, sys, threading
import numpy, onnxruntime, torch
from onnx import TensorProto, helper
from fewbits.engines.processor import this_processor
weights = helper.make_tensor("w", TensorProto.INT8, (2, 1), [127, 127])
graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "g",
                          [helper.make_tensor_value_info("x", TensorProto.UINT8, (1, 2))],
                          [helper.make_tensor_value_info("y", TensorProto.INT32, (1, 1))], [weights])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
print(session.run(None, {"x": numpy.full((1, 2), 255, numpy.uint8)})[0].item())
print(" ".join(this_processor().features))
print(torch.backends.cpu.get_cpu_capability(), numpy._core._multiarray_umath.__cpu_features__["AVX512F"])
thread = threading.Thread(target=lambda: print(" ".join(this_processor.__wrapped__().features), flush=True))
thread.start()
thread.join()
if len(sys.argv) == 1:
    subprocess.run([sys.executable, __file__, "once"], check=True)
"""


@pytest.fixture(scope="module", params=KINDS)
def environment(request, tmp_path_factory) -> dict[str, str]:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("CPUID is masked on Linux on x86-64 only")
    with open("/proc/cpuinfo") as told:
        if "cpuid_fault" not in told.read():
            pytest.skip("this processor, or its virtual machine, does not let CPUID fault")
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("no C compiler")
    return os.environ | masked(request.param, tmp_path_factory.mktemp("masked"))


def test_onnxruntime_saturates_and_all_see_one_processor(environment, tmp_path):
    script = tmp_path / "product.py"
    script.write_text(PRODUCT)
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    wide = environment["FEWBITS_CPUID"] == "avx512"
    features = "avx2 fma" + " avx512f avx512bw avx512dq avx512vl" * wide
    assert done.stdout.splitlines() == [
        "32767", features, f"{'AVX512' if wide else 'AVX2'} {wide}", features] * 2


@pytest.mark.parametrize("script", [
    "import ctypes; ctypes.string_at(0)", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "import faulthandler; faulthandler.enable(); faulthandler._sigsegv()",
])
def test_other_faults_end_the_program_as_ever(environment, script):
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGSEGV
    assert ("Fatal Python error: Segmentation fault" in done.stderr) == ("faulthandler" in script)
