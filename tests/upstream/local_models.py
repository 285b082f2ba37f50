"""A plugin for the pytest that runs upstream's server tests: local models in place of those they download."""

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

sys.modules["wget"] = ModuleType("wget")  # upstream's utils import it, to download models

import utils  # noqa: E402  upstream's, beside its tests

MODELS = Path(os.environ["ATLAS_UPSTREAM_MODELS"])
_start = utils.ServerProcess.start


def start(self: Any, *arguments: Any, **options: Any) -> None:
    """Start with a local model of the same kind where a repository is named; never ask the network."""
    if self.model_hf_repo and not self.model_file:
        kind = "rerank" if self.server_reranking else "bert" if self.server_embeddings else "llama"
        self.model_hf_repo = self.model_hf_file = None
        self.model_file = str(MODELS / f"{kind}.gguf")
    self.offline = True
    _start(self, *arguments, **options)


utils.ServerProcess.start = start
utils.ServerPreset.load_all = staticmethod(lambda: None)  # it downloads
