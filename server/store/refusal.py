"""How the store's parts say no."""

from saltline.protocol.errors import ErrorCode


class Refusal(Exception):
    """An operation breaks a rule. Raised before its first write, so that nothing is undone."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
