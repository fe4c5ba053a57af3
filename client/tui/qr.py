"""QR codes for a terminal: two modules a character with half blocks, or ASCII."""

from typing import Final

import segno

from saltline.client.model import ContactInfo

QUIET_ZONE: Final = 2  # ISO/IEC 18004 asks for 4; every reader tried is content with 2

_HALVES: Final = {(0, 0): "\u2588", (0, 1): "\u2580", (1, 0): "\u2584", (1, 1): " "}


def identity_text(own: ContactInfo) -> str:
    """What a QR code of somebody's key says, in the characters that make it small."""
    digits = own.fingerprint.replace(" ", "").removeprefix("sha256:")
    return f"SALTLINE:{own.username}:{digits}".upper().replace("_", "%5F")


def qr_rows(text: str, *, ascii_only: bool = False) -> list[str]:
    """Rows of characters that draw a QR code with light blocks on a dark ground.

    `text` in capitals, digits and ` $%*+-./:` makes the smallest code.
    """
    code = segno.make(text, error="l", micro=False, boost_error=False)
    matrix = [list(row) for row in code.matrix_iter(border=QUIET_ZONE)]
    if ascii_only:
        return ["".join("  " if module else "##" for module in row) for row in matrix]
    if len(matrix) % 2:
        matrix.append([0] * len(matrix[0]))
    return [
        "".join(_HALVES[bool(up), bool(down)] for up, down in zip(above, below, strict=True))
        for above, below in zip(matrix[::2], matrix[1::2], strict=True)
    ]
