"""Where personal data stands in a text, by patterns and check digits. Pure: any thread.

What is found depends on no more than MAX_MATCH characters behind its beginning, and the few before it.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

MAX_MATCH = 320
"""Characters; an address of e-mail has 320 at most."""


@dataclass(frozen=True, order=True)
class Span:
    """Characters `start` to `end` of a text, and what they are."""

    start: int
    end: int
    kind: str


Find = Callable[[str, int], Iterable[Span]]
"""Finds spans from a place in a text on; those may overlap, and come in any order."""

_SPACE = " \u00a0\u202f"
_LOCAL = re.compile(r"[\w.%+'-]")
_MAX_LOCAL, _MAX_DOMAIN = 64, 250
_DOMAIN = re.compile(r"(?:\w(?:[\w-]{0,61}\w)?\.){1,8}(?:xn--[a-zA-Z0-9-]{2,59}|[^\W\d_]{2,24})")

_BETWEEN = rf"[{_SPACE}./()-]{{0,3}}"
_PHONE = re.compile(
    # with the country; with 0; with the area in brackets; as in America
    rf"(?<![\w+])(?:\+|00)(?:{_BETWEEN}\d){{7,15}}"
    rf"|(?<![\w.])(?!\d\d[/-]\d\d[/-]\d{{4}})0[1-9](?:[{_SPACE}/()-]{{0,2}}\d){{5,12}}"
    rf"|\(0?\d{{2,5}}\)(?:[{_SPACE}/-]{{0,2}}\d){{5,10}}"
    rf"|(?<![\w.-])[2-9]\d\d[{_SPACE}.-]\d{{3}}[{_SPACE}.-]\d{{4}}(?!\d)"
)

_IBAN = re.compile(rf"(?<![^\W_])[A-Z]{{2}}\d\d(?:[{_SPACE}]?[A-Z0-9]){{11,30}}", re.IGNORECASE | re.ASCII)
# By country, of ISO 13616.
_LENGTHS = """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29
ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28
LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25
QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
_IBAN_LENGTHS = {one[:2]: int(one[2:]) for one in _LENGTHS.split()}

_DIGITS = re.compile(rf"\d(?:[{_SPACE}-]?\d){{12,}}", re.ASCII)
# By the first two digits of cards.
_CARD_LENGTHS = {
    **dict.fromkeys((22, 23, 24, 25, 26, 27, 35, 51, 52, 53, 54, 55), (16,)),
    **dict.fromkeys((30, 36, 38, 39), (14,)),
    **dict.fromkeys((34, 37), (15,)),
    **dict.fromkeys(range(40, 50), (19, 16, 13)),
    **dict.fromkeys((60, 62, 64, 65), (19, 18, 17, 16)),
}

_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)", re.ASCII)
_IPV6 = re.compile(
    # Behind a name and a colon, too.
    r"(?:(?<![\w:.])|(?<=[a-zA-Z]:))(?=[0-9a-fA-F.]*:[0-9a-fA-F.]*:)[0-9a-fA-F:.]{3,45}(?<!\.)(?![\w:])",
    re.ASCII,
)


def _email(text: str, start: int) -> Iterator[Span]:
    at = text.find("@", start)
    while at >= 0:
        domain = _DOMAIN.match(text, at + 1, at + 1 + _MAX_DOMAIN)
        first = at
        while first > max(start, at - _MAX_LOCAL) and _LOCAL.match(text, first - 1):
            first -= 1
        # What stands before the first letter is a quote or the end of a sentence.
        while first < at and text[first] in ".'-":
            first += 1
        if domain and first < at:
            yield Span(first, domain.end(), "email")
        at = text.find("@", at + 1)


def _phone(text: str, start: int) -> Iterator[Span]:
    yield from (Span(*match.span(), "phone") for match in _PHONE.finditer(text, start))


def _iban(text: str, start: int) -> Iterator[Span]:
    match = _IBAN.search(text, start)
    while match:
        places = [place for place in range(*match.span()) if text[place] not in _SPACE]
        length = _IBAN_LENGTHS.get(match[0][:2].upper(), 99)
        if length <= len(places):
            number = "".join(text[place] for place in places[:length])
            if int("".join(str(int(one, 36)) for one in number[4:] + number[:4])) % 97 == 1:
                yield Span(match.start(), places[length - 1] + 1, "iban")
        match = _IBAN.search(text, match.start() + 1)


def _card(text: str, start: int) -> Iterator[Span]:
    for match in _DIGITS.finditer(text, start):
        yield from _cards_among(text, [place for place in range(*match.span()) if text[place].isdigit()])


def _cards_among(text: str, places: list[int]) -> Iterator[Span]:
    """Cards in a longer run of digits: each begins where digits that touch begin, or ends where they end."""
    digits = [int(text[place]) for place in places]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits]
    # Sums by Luhn up to each place, where every second digit counts double, from an even place or an odd one.
    sums = [
        [0, *accumulate(doubled[i] if i % 2 != last else digits[i] for i in range(len(digits)))]
        for last in (0, 1)
    ]
    first = 0
    while first < len(digits):
        for length in _CARD_LENGTHS.get(int("".join(map(str, digits[first : first + 2]))), ()):
            end = first + length
            if end > len(digits):
                continue
            begins = first == 0 or places[first - 1] + 1 != places[first]
            ends = end == len(digits) or places[end - 1] + 1 != places[end]
            of_last = sums[(end - 1) % 2]
            if (begins or ends) and (of_last[end] - of_last[first]) % 10 == 0:
                yield Span(places[first], places[end - 1] + 1, "card")
                first = end - 1
                break
        first += 1


def _ip(text: str, start: int) -> Iterator[Span]:
    for match in _IPV4.finditer(text, start):
        if all(int(part) <= 255 for part in match[0].split(".")):
            yield Span(*match.span(), "ip")
    for match in _IPV6.finditer(text, start):
        # `::` and words of a program, such as `a::b`, are none.
        number = match[0].rstrip(":") if match[0].endswith(":") and not match[0].endswith("::") else match[0]
        if any(one.isdigit() for one in number) and _is_ipv6(number):
            yield Span(match.start(), match.start() + len(number), "ip")


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


KINDS: dict[str, Find] = {"email": _email, "phone": _phone, "iban": _iban, "card": _card, "ip": _ip}
_TELLING = re.compile(r"[@\d]")


def known(kinds: Iterable[str]) -> Find:
    """Finds these of KINDS."""
    finds = [KINDS[kind] for kind in kinds]

    def find(text: str, start: int) -> Iterable[Span]:
        if not _TELLING.search(text, start):
            return ()
        return [span for one in finds for span in one(text, start)]

    return find


def regex(kind: str, pattern: re.Pattern[str]) -> Find:
    """Finds what a regular expression matches."""

    def find(text: str, start: int) -> Iterable[Span]:
        return [
            Span(*match.span(), kind)
            for match in pattern.finditer(text, start)
            if match.end() > match.start()
        ]

    return find


def united(spans: Iterable[Span]) -> list[Span]:
    """In order, and those that overlap as one, which is what the longest of them is."""
    found: list[Span] = []
    longest = 0
    for span in sorted(spans):
        size = span.end - span.start
        if found and span.start < found[-1].end:
            kind = span.kind if size > longest else found[-1].kind
            found[-1] = Span(found[-1].start, max(found[-1].end, span.end), kind)
            longest = max(longest, size)
        else:
            found.append(span)
            longest = size
    return found
