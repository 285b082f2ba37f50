"""What clients note beside a conversation: a few short texts by names."""

from typing import Annotated

from msgspec import Meta

from atlas_plugin.bodies import value_must_be

Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
    value_must_be("an object of up to 16 texts of up to 512 characters, by names of up to 64", max_length=16),
]
