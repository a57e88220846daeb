"""Public formats → records. Each reader is one file; all yield :class:`Problem` or :class:`Solution`."""

from stepverify.readers.base import Reader
from stepverify.readers.gsm8k import GSM8K
from stepverify.readers.openai import OpenAISolutions
from stepverify.readers.records import Problems, Solutions
from stepverify.readers.strictprmbench import StrictPRMBench
from stepverify.readers.synthetic import Synthetic

__all__ = ["GSM8K", "OpenAISolutions", "Problems", "Reader", "Solutions", "StrictPRMBench", "Synthetic"]
