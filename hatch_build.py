"""Compiles the native kernels when the package is built or installed; without a compiler it goes on without them. The
labs go into the wheel."""

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelHook(BuildHookInterface):
    """docs/decisions/0003-kernels-are-compiled-by-a-build-hook.md"""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        if version == "standard":  # an editable installation runs the labs of its checkout
            build_data["force_include"]["labs"] = "fewbits/labs"
        spec = importlib.util.spec_from_file_location("kernel_build", Path(self.root) / "src/fewbits/kernels/build.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        failure = module.build()
        if failure:
            self.app.display_warning(f"fewbits: {failure}; the kernels run in NumPy, slower")
            return
        build_data["artifacts"].append(f"src/fewbits/kernels/{module.LIBRARY.name}")
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
