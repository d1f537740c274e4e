"""PURE. Texts that tell a caller, or the log, why there is no connection, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._statistics import PoolStatistics


def explain_timeout(
    name: str, cause: str, waited: float, figures: PoolStatistics, *, holder: str, holds_itself: bool
) -> str:
    """The text of a `PoolTimeout`.

    `cause` names the limit that was reached, with its value; `holder` names the longest holder.
    """
    limit = "no limit" if figures.max_size is None else f"max_size={figures.max_size}"
    places = "1 place" if figures.size == 1 else f"{figures.size} places"
    parts = [
        f"{name}: no connection after {waited:.3g} s ({cause})",
        f"{places} in use ({limit}): {figures.held} held, {figures.idle} idle, "
        f"{figures.dialling} dialling, {figures.reserved} reserved, {figures.validating} validating, "
        f"{figures.resetting} resetting, {figures.closing} closing, {figures.taken} taken out; "
        f"{figures.waiting} still waiting",
    ]
    if figures.taken:
        parts.append("a place whose connection was taken out by take() is free when its handle is released")
    if figures.held:
        parts.append(f"held longest: {figures.longest_held:.3g} s by {holder}")
    if figures.last_dial_error is not None:
        parts.append(f"last dial error: {describe(figures.last_dial_error)}")
    if holds_itself:
        parts.append(
            "this task holds a connection of this pool already: waiting for a second one while "
            "holding the first can block for ever; release the first, or raise max_size"
        )
    return "; ".join(parts)


def describe(error: BaseException) -> str:
    """An error in words: its text, or with the name of its type if that is one word or none, as a KeyError's."""
    try:
        text = str(error)
    except Exception:
        text = ""  # it comes from the user's code, and fails in its own way
    return text if " " in text else f"{type(error).__name__}({text})"
