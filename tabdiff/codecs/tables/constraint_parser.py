"""The text of a constraint, taken apart."""

import re

__all__ = ["parse_constraint"]

_TOKEN = re.compile(r"\s*(?:`(?P<quoted>[^`]+)`|(?P<name>[^\W\d][\w.]*)|(?P<operator><=|>=|==|[<>=+-]))\s*")


def parse_constraint(text: str) -> tuple[list[tuple[int, str]], str, list[tuple[int, str]]]:
    """Read a constraint: signed names on the left, the operator, signed names on the right.

    Raises
    ------
    ValueError
        If it cannot be read.

    Examples
    --------
    >>> parse_constraint("total = a - `b c`")
    ([(1, 'total')], '=', [(1, 'a'), (-1, 'b c')])
    """
    form = "Write 'a <= b', 'a < b' or 'total = a + b - c', and `names like this` in backticks."
    if not isinstance(text, str):
        raise ValueError(f"a constraint must be a string; got {text!r}. {form}")
    sides: list[list[tuple[int, str]]] = [[]]
    operator, sign, position = "", 0, 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"constraint {text!r} cannot be read at {text[position:]!r}. {form}")
        name, symbol, start = match["quoted"] or match["name"], match["operator"], not sides[-1]
        if name and (sign or start):
            sides[-1].append((sign or 1, name))
            sign = 0
        elif symbol in ("+", "-") and not sign and not (start and symbol == "+"):
            sign = 1 if symbol == "+" else -1
        elif symbol and symbol not in ("+", "-") and not operator and not sign and not start:
            operator = "=" if symbol == "==" else symbol
            sides.append([])
        else:
            raise ValueError(f"constraint {text!r} cannot be read at {text[position:]!r}. {form}")
        position = match.end()
    if not operator or sign or not sides[-1]:
        raise ValueError(f"constraint {text!r} is not complete. {form}")
    return sides[0], operator, sides[1]
