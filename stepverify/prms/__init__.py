"""Load process reward models that others have released."""

from stepverify.prms.families import FAMILIES, Family, check_files, load_format
from stepverify.prms.load import load_prm

__all__ = ["FAMILIES", "Family", "check_files", "load_format", "load_prm"]
