"""Read public data formats as records, one reader per file.

All readers yield :class:`Problem` or :class:`Solution`.
"""

from stepverify.readers.base import Reader
from stepverify.readers.critiques import Critiques
from stepverify.readers.gsm8k import GSM8K
from stepverify.readers.math import MATH
from stepverify.readers.math_shepherd import MathShepherd
from stepverify.readers.omegaprm import OmegaPRM
from stepverify.readers.openai import OpenAISolutions
from stepverify.readers.openr import OpenR
from stepverify.readers.openrlhf import OpenRLHF
from stepverify.readers.prm800k import PRM800K
from stepverify.readers.processbench import ProcessBench
from stepverify.readers.rated import RatedSolutions
from stepverify.readers.ratings import HumanRatings
from stepverify.readers.records import Problems, Solutions
from stepverify.readers.rlhflow import RLHFlow
from stepverify.readers.stepwise import Stepwise
from stepverify.readers.strictprmbench import StrictPRMBench
from stepverify.readers.synthetic import Synthetic
from stepverify.readers.worked import Worked

__all__ = [
    "GSM8K", "MATH", "PRM800K", "Critiques", "HumanRatings", "MathShepherd", "OmegaPRM", "OpenAISolutions", "OpenR",
    "OpenRLHF", "Problems", "ProcessBench", "RLHFlow", "RatedSolutions", "Reader", "Solutions", "Stepwise",
    "StrictPRMBench", "Synthetic", "Worked",
]  # fmt: skip
