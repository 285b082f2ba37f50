"""native/abi.txt says what programs have compiled into themselves of the library's headers."""

import pytest

from atlas_build.abi import RECORD, VERSION, Abi, built, functions, number_of, problems, read
from tests.server.harness import REPOSITORY

LINES = ("AtlasRequest: 184 bytes, aligned to 8", "atlas::is_logged(atlas::LogLevel)")

STRING = "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >"
SYMBOLS = f"""\
0000000000001000 A ATLAS_0
0000000000001000 T atlas::logf(atlas::LogLevel, char const*, ...)@@ATLAS_0
0000000000001000 T atlas::get_atlas_info[abi:cxx11]()@@ATLAS_0
0000000000001000 T atlas::AtlasServer::~AtlasServer()@@ATLAS_0
0000000000001000 W atlas::AtlasServerConfig::~AtlasServerConfig()@@ATLAS_0
0000000000001000 T atlas::log({STRING} const&)@@ATLAS_0
"""


def test_the_library_is_what_the_file_says() -> None:
    recorded = read(RECORD.read_text(encoding="utf-8"))
    found = problems(recorded, number_of(VERSION.read_text(encoding="utf-8")), built(REPOSITORY / "build"))
    assert list(found) == []


def test_the_file_is_read_as_it_is_written() -> None:
    for abi in (Abi(0, False, LINES), Abi(12, True, ())):
        assert read(str(abi)) == abi
    with pytest.raises(ValueError, match="ATLAS_API_VERSION"):
        read("\n".join(LINES))


@pytest.mark.parametrize("is_released", [False, True])
def test_a_new_function_raises_nothing(is_released: bool) -> None:
    recorded = Abi(3, is_released, LINES)
    assert list(problems(recorded, 3, LINES)) == []
    advice, *differences = problems(recorded, 3, [*LINES, "atlas::log()"])
    assert advice == "native/abi.txt is not what is built: write it anew, by tools/abi"
    assert differences == ["+ atlas::log()"]


def test_what_breaks_programs_raises_the_number_of_a_release() -> None:
    changed = ("AtlasRequest: 192 bytes, aligned to 8", LINES[1])
    advice, *differences = problems(Abi(3, True, LINES), 3, changed)
    assert advice == (
        "programs that were compiled before do not work with this library: "
        "raise ATLAS_API_VERSION to 4 in native/api/CMakeLists.txt, then run tools/abi"
    )
    assert differences == [f"- {LINES[0]}", f"+ {changed[0]}"]
    for recorded, number in ((Abi(3, True, LINES), 4), (Abi(3, False, LINES), 3)):
        advice, *differences = problems(recorded, number, changed)
        assert advice.endswith("write it anew, by tools/abi")
        assert len(differences) == 2


def test_functions_have_the_names_of_their_headers() -> None:
    assert list(functions(SYMBOLS)) == [
        "atlas::logf(atlas::LogLevel, char const*, ...)",
        "atlas::get_atlas_info()",
        "atlas::AtlasServer::~AtlasServer()",
        "atlas::log(std::string const&)",
    ]
