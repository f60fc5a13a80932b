"""What a wheel needs, but for some packages: `python needs_of.py WHEEL LEFT_OUT ...`."""

import sys
import zipfile
from email.parser import Parser

wheel, *left_out = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(archive.read(name).decode())
needs = [each for each in metadata.get_all("Requires-Dist") or [] if "extra ==" not in each]
print(" ".join(each.replace(" ", "") for each in needs if not each.startswith(tuple(left_out))))
