"""The ready-made plugin `pii`: what is found, and that a stream is redacted as the whole text is."""

import json
import random
import re
import sys
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_plugin import CompletionRequest
from atlas_plugin.errors import PluginError
from atlas_plugin.plugins.pii import patterns, presidio
from atlas_plugin.plugins.pii.patterns import KINDS, Find, Span, known, regex, united
from atlas_plugin.plugins.pii.runs import LINES, TELLING_WORDS, WORDS, Chain, Redaction, Runs
from atlas_plugin.testing import Application, FakeHost
from atlas_plugin.texts import TextFilter

CHAT = "/v1/chat/completions"

EMAILS = [
    "ada@example.org",
    "a.b-c+d%e@sub.exam-ple.co.uk",
    "o'brien@example.org",
    "jörg@müller.de",
    "x@a.xn--p1ai",
]
PHONES = [
    "+49 30 1234567",
    "+1 (555) 010-9999",
    "0049/30/1234567",
    "030 1234567",
    "0171-1234567",
    "(030) 1234-567",
    "555-010-9999",
    "+44\u00a020\u00a07946\u00a00958",
]
IBANS = [
    "DE89 3704 0044 0532 0130 00",
    "DE89370400440532013000",
    "GB29 NWBK 6016 1331 9268 19",
    "mt84malt011000012345mtlcast001s",
]
CARDS = [
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "378282246310005",
    "5555555555554444",
    "30569309025904",
]
IPS = ["192.168.0.17", "2001:db8::8a2e:370:7334", "fe80:0:0:0:1:2:3:4", "::1"]
ALL = [
    (text, kind)
    for kind, texts in zip(KINDS, (EMAILS, PHONES, IBANS, CARDS, IPS), strict=True)
    for text in texts
]

NONE = [
    "ada@localhost",
    "@ada",
    "2026-11-29 09:05:23",
    "01/02/2024",
    "version 1.22.333",
    "DE11 3704 1144 1532 1130 11",
    "4111 1111 1111 1112",
    "1.2.3.256",
    "std::vector a::b 12:30:45",
    "1234567",
    "0.1234567",
    "GB29 XYZ",
    "AB12 CDEF",
]


def marked(span: Span) -> str:
    return f"[{span.kind.upper()}]"


def redact(text: str, find: Find | None = None, runs: Runs = TELLING_WORDS) -> str:
    one = Redaction(runs, find or known(KINDS), marked)
    return one.feed(text) + one.end()


@pytest.mark.parametrize(("text", "kind"), ALL)
@pytest.mark.parametrize(
    "around",
    ["{}", "Write to {}, now.", "({})", '"{}"', "<{}>\n", "x={};", "[{}](mailto:{})", r"{{\"a\":\"\n{}\"}}"],
)
def test_found(text: str, kind: str, around: str) -> None:
    expected = around.replace("{{", "{").replace("}}", "}").replace("{}", f"[{kind.upper()}]")
    given = around.replace("{{", "{").replace("}}", "}").replace("{}", text)
    assert redact(given) == expected


@pytest.mark.parametrize("text", NONE)
def test_not_found(text: str) -> None:
    assert redact(f"It is {text} today.") == f"It is {text} today."


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("99 4111 1111 1111 1111 7", "99 [CARD] 7"),
        ("94111111111111111", "9[CARD]"),
        ("41111111111111117", "[CARD]7"),
        ("4111111111111111 5555555555554444", "[CARD] [CARD]"),
        ("4111111111111111,5555555555554444", "[CARD],[CARD]"),
    ],
)
def test_a_card_in_a_longer_run_of_digits(text: str, redacted: str) -> None:
    assert redact(text, known(["card"])) == redacted


def test_what_overlaps_is_one() -> None:
    spans = [Span(0, 4, "a"), Span(2, 9, "b"), Span(8, 10, "c"), Span(10, 11, "d")]
    assert united(spans) == [Span(0, 10, "b"), Span(10, 11, "d")]


# What texts are made of: data, parts of data, what stands between, and what looks like either.
PARTS = st.one_of(
    st.sampled_from([text for text, _ in ALL] + NONE),
    st.sampled_from(
        [
            " ",
            "  ",
            "\n",
            ". ",
            ", ",
            "\\",
            "\\n",
            "\\u00e4",
            "\\\\",
            '"',
            ":",
            "@",
            "-",
            "(",
            ")",
            "/",
            "\u00a0",
        ]
    ),
    st.sampled_from(["4", "41", "DE", "A", "a", "0", "+", "x.y", "été", "日本", "42 000 A"]),
    st.text(alphabet="aA1 .@+-:\\un", max_size=8),
)
TEXTS = st.lists(PARTS, max_size=30).map("".join)

# A window that is much smaller, so that runs are much longer.
SMALL_WORDS = replace(WORDS, max_match=12)
SMALL_TELLING = replace(TELLING_WORDS, max_match=16)
SMALL_LINES = replace(LINES, max_match=10)
GREEDY = regex("greedy", re.compile(r"(?<=a)b?1+|A.*\d|(?<!\d)0+(?!x)"))


def filters() -> list[TextFilter]:
    return [
        Redaction(TELLING_WORDS, known(KINDS), marked),
        Redaction(WORDS, known(KINDS), marked),
        Redaction(SMALL_TELLING, known(KINDS), marked),
        Redaction(SMALL_WORDS, known(KINDS), marked),
        Redaction(SMALL_WORDS, GREEDY, marked),
        Redaction(SMALL_LINES, GREEDY, marked),
        Chain([Redaction(WORDS, known(KINDS), marked), Redaction(SMALL_LINES, GREEDY, marked)]),
    ]


@pytest.mark.parametrize("which", range(len(filters())))
@given(text=TEXTS, seed=st.integers(0, 1000))
def test_a_stream_is_redacted_as_the_whole(which: int, text: str, seed: int) -> None:
    """However it is cut: what comes out in the end, and what is out after each piece."""
    whole, by_characters, by_pieces = (filters()[which] for _ in range(3))
    out = ""
    after = [""]
    for character in text:
        out += by_characters.feed(character)
        after.append(out)
    out += by_characters.end()
    assert out == whole.feed(text) + whole.end()
    dice, at, said = random.Random(seed), 0, ""
    while at < len(text):
        size = dice.randint(1, 12)
        said += by_pieces.feed(text[at : at + size])
        at = min(len(text), at + size)
        assert said == after[at]
    assert said + by_pieces.end() == out


@given(
    data=st.sampled_from([text for text, _ in ALL]),
    before=st.text(alphabet="ab 9.\n", max_size=700),
    after=st.sampled_from(["", " ", ".", "\n", ", x"]),
)
def test_nothing_gets_through(data: str, before: str, after: str) -> None:
    assert data not in redact(f"{before} {data}{after}")


@given(text=TEXTS)
def test_words_that_are_passed_over_have_nothing(text: str) -> None:
    assert redact(text) == redact(text, runs=WORDS)


def test_little_waits() -> None:
    one = Redaction(TELLING_WORDS, known(KINDS), marked)
    assert one.feed("Hello, I am here and ") == "Hello, I am here and "
    assert one.feed("you are th") == "you are "
    assert one.feed("ere 4111 1111") == "there "
    assert one.end() == "4111 1111"
    assert len(Redaction(WORDS, known(KINDS), marked).feed("x" * 100_000)) > 100_000 - 3 * patterns.MAX_MATCH


def test_data_in_a_very_long_run() -> None:
    for size in range(0, 1500, 7):
        text = "9" * 5 + "." * size + "ada@example.org" + "/" * 900
        assert "ada@" not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "1" * 200_000,
        "a@" * 100_000,
        "4 1" * 60_000,
        "(0" * 100_000,
        ":a" * 100_000,
        "A1" * 100_000,
        "\\u0" * 60_000,
    ],
)
def test_texts_that_are_made_to_take_long(text: str) -> None:
    """The test's own time limit is far above what these take."""
    assert redact(text)


def ask(application: Application, hook: str, value: Any, request: CompletionRequest | None = None) -> Any:
    return application.ask(hook, request or CompletionRequest(CHAT, "r1"), value)


def configured(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> Application:
    for name, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value)
        monkeypatch.setenv(f"ATLAS_PLUGIN_PII_{name.upper()}", text)
    return Application(FakeHost(plugins=["pii"]))


BODY = {"messages": [{"role": "user", "content": "I am ada@example.org, EMP-1234, at 10.0.0.1"}]}


def content(asked: Any) -> str:
    text: str = asked.value["messages"][0]["content"]
    return text


def test_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(monkeypatch) as application:
        assert content(ask(application, "on_request", BODY)) == "I am [EMAIL], EMP-1234, at [IP]"
        plain = {"messages": [{"role": "user", "content": "Hi"}]}
        assert ask(application, "on_request", plain).value == plain
        [family] = [one for one in application.plugins.metrics() if one.name == "atlas_plugin_pii_total"]
        counts = {(one.labels["where"], one.labels["kind"]): one.value for one in family.samples}
        assert counts == {("request", "email"): 1, ("request", "ip"): 1}


def test_what_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [{"name": "staff", "regex": r"EMP-\d+", "within": "word"}, {"name": "start", "regex": "I am"}]
    with configured(monkeypatch, kinds=["email"], patterns=own, replacement="<{kind}>") as application:
        assert content(ask(application, "on_request", BODY)) == "<START> <EMAIL>, <STAFF>, at 10.0.0.1"


def test_only_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(monkeypatch, requests="false") as application:
        assert ask(application, "on_request", BODY).value == BODY
        assert ask(application, "on_request", {"prompt": [1, 2]}).rejected is None
        assert ask(application, "on_response", {"content": "10.0.0.1", "tokens": [1]}).value == {
            "content": "[IP]",
            "tokens": [],
        }


def test_only_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(monkeypatch, answers="false") as application:
        answer = {"content": "10.0.0.1", "tokens": [1]}
        assert ask(application, "on_response", answer).value == answer
        chunk = {"events": [answer], "is_last": True}
        assert ask(application, "on_stream_chunk", chunk).value.events == (answer,)


def test_token_ids_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(monkeypatch) as application:
        rejected = ask(application, "on_request", {"prompt": ["Hi", [1, 2]]}).rejected
        assert rejected is not None
        assert (rejected.status, "token ids" in rejected.message) == (400, True)


def test_very_long_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(monkeypatch, max_characters=1000) as application:
        assert ask(application, "on_request", {"prompt": "x" * 1000}).rejected is None
        rejected = ask(application, "on_request", {"prompt": ["x" * 1000, "y"]}).rejected
        assert rejected is not None and rejected.status == 413


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"kinds": ["mail"]}, "kinds"),
        ({"patterns": [{"name": "a", "regex": "("}]}, r"patterns\[0\].regex: missing \)"),
        ({"patterns": [{"name": "a", "regex": "x*"}]}, r"patterns\[0\].regex: it matches the empty text"),
        ({"patterns": [{"name": "a b", "regex": "x"}]}, r"patterns\[0\].name"),
        ({"max_characters": 1}, "max_characters"),
        ({"presidio": {"model": "en", "score": 2}}, "presidio.score"),
        ({"presidio": {"model": "en"}}, "install the extra 'presidio'"),
    ],
)
def test_wrong_configuration(monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], why: str) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(PluginError, match=why), configured(monkeypatch, **fields):
        pass


@dataclass
class Found:
    entity_type: str
    start: int
    end: int


class Names:
    """Presidio, as far as it is used: finds words with a capital that stand alone."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def analyze(
        self, text: str, language: str, entities: list[str] | None, score_threshold: float
    ) -> list[Found]:
        self.asked.append((language, entities))
        return [Found("PERSON", *match.span()) for match in re.finditer(r"\b[A-Z][a-z]+ [A-Z][a-z]+\b", text)]


def test_presidio(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names()
    monkeypatch.setattr(presidio, "load", lambda config: names)
    with configured(
        monkeypatch, presidio={"model": "en", "language": "de", "entities": ["PERSON"]}
    ) as application:
        body = {"messages": [{"role": "user", "content": "I am Ada Lovelace,\nada@example.org"}]}
        assert content(ask(application, "on_request", body)) == "I am [PERSON],\n[EMAIL]"
        request = CompletionRequest(CHAT, "r2", is_streamed=True)
        said = ""
        for number, piece in enumerate(["I am A", "da Love", "lace ", "at 10.0.", "0.1"]):
            chunk = {"events": [{"index": 0, "content": piece}], "is_last": number == 4}
            said += "".join(
                one["content"] for one in ask(application, "on_stream_chunk", chunk, request).value.events
            )
        assert said == "I am [PERSON] at [IP]"
    assert set(map(str, names.asked)) == {"('de', ['PERSON'])"}


def test_a_model_of_presidio_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presidio would download it."""
    spacy, engine = _Module(), _Module()

    def load(name: str, exclude: list[str]) -> None:
        raise OSError(name)

    spacy.load = load
    for name, module in (
        ("spacy", spacy),
        ("presidio_analyzer", engine),
        ("presidio_analyzer.nlp_engine", engine),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(ValueError, match=r"presidio\.model: spaCy has no model en_x"):
        presidio.load(presidio.Presidio(model="en_x"))


class _Module:
    AnalyzerEngine = NlpEngineProvider = None
    load: Any
