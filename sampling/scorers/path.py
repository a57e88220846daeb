"""Accept the folder of an export in the place of a scorer."""

from __future__ import annotations

import yaml
from jsonargparse.typing import restricted_string_type
from yaml.representer import SafeRepresenter

# A text in braces is no path: otherwise a scorer with a misspelt key would be read as one, without any error.
ExportPath = restricted_string_type("ExportPath", r"^[^{}\n]+$")
yaml.SafeDumper.add_representer(ExportPath, SafeRepresenter.represent_str)  # for --print_config
