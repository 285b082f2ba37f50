"""Personal data found by Microsoft's Presidio, which knows names, places and more: the extra `presidio`."""

import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Protocol

from msgspec import Meta, Struct

from atlas_plugin.plugins.pii.patterns import Find, Span


class Presidio(Struct, forbid_unknown_fields=True, frozen=True):
    """What Presidio is to look for, and how."""

    model: Annotated[str, Meta(min_length=1)]
    """A model of spaCy that is installed, such as `en_core_web_lg`, or its directory."""
    language: Annotated[str, Meta(pattern="^[a-z]{2}$")] = "en"
    entities: list[str] = []
    """Such as PERSON and LOCATION; none: all that it knows."""
    score: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """How sure it has to be."""


class Result(Protocol):
    """A RecognizerResult of Presidio."""

    entity_type: str
    start: int
    end: int


class Analyzer(Protocol):
    """What is used of Presidio's AnalyzerEngine."""

    def analyze(
        self, text: str, language: str, entities: list[str] | None, score_threshold: float
    ) -> Sequence[Result]:
        """What is in the text."""


def load(config: Presidio) -> Analyzer:
    """Presidio with the model. Raises ValueError where one of them is missing; no model is downloaded."""
    try:
        import spacy
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError as error:
        raise ValueError(
            f"presidio: {error}; install the extra 'presidio' into {sys.prefix}: "
            "bin/python -m pip install '.[presidio]', in the source tree of ATLAS"
        ) from None
    try:
        # Presidio would download it.
        spacy.load(config.model, exclude=["*"])
    except OSError:
        raise ValueError(
            f"presidio.model: spaCy has no model {config.model}: python -m spacy download {config.model}"
        ) from None
    models = [{"lang_code": config.language, "model_name": config.model}]
    engine = NlpEngineProvider(
        nlp_configuration={"nlp_engine_name": "spacy", "models": models}
    ).create_engine()
    analyzer: Any = AnalyzerEngine(nlp_engine=engine, supported_languages=[config.language])
    found: Analyzer = analyzer
    return found


def finder(analyzer: Analyzer, config: Presidio) -> Find:
    """Finds what Presidio finds."""

    def find(text: str, start: int) -> Iterable[Span]:
        results = analyzer.analyze(
            text=text,
            language=config.language,
            entities=config.entities or None,
            score_threshold=config.score,
        )
        return [Span(max(one.start, start), one.end, one.entity_type) for one in results if one.end > start]

    return find
