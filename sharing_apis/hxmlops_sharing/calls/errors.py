"""How a call fails: what, where, why and what to do, in one line."""


class SharingError(Exception):
    """A call failed. Without an answer, `status` is None; `detail` is the server's own reason."""

    def __init__(self, message: str, status: int | None = None, detail: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail
        self.request_id = request_id


class WrongBytes(SharingError):
    """Other bytes came than those with the digest that was asked for; none of them is kept."""
