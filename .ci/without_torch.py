"""What of an installed fewbits can be seen without torch: every file compiles without a warning, the verbs' help is
there, and no module fails but for want of torch. Run by release-check on a Python for which there is no torch."""

import importlib
import pkgutil
import subprocess
import sys
import warnings
from pathlib import Path

import fewbits

warnings.simplefilter("error", SyntaxWarning)
folder = Path(fewbits.__file__).parent
files = sorted(folder.rglob("*.py"))
for file in files:
    compile(file.read_text(encoding="utf-8"), str(file), "exec")

imported = 0
for module in pkgutil.walk_packages([str(folder)], "fewbits.", onerror=lambda name: None):
    source = Path(folder.parent, *module.name.split(".")).with_suffix(".py")
    if module.name.startswith("fewbits.labs") or source.name == "__main__.py" or not (
            module.ispkg or source.exists()):  # the native library only looks like a module
        continue
    try:
        importlib.import_module(module.name)
        imported += 1
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
from fewbits.cli.verb import name_of  # noqa: E402
from fewbits.cli.verbs import ALL  # noqa: E402

for verb in ALL:
    subprocess.run([str(Path(sys.executable).with_name("fewbits")), name_of(verb), "--help"], check=True,
                   stdout=subprocess.DEVNULL)
print(f"{len(files)} files compile, {imported} modules import, {len(ALL)} verbs have help")
