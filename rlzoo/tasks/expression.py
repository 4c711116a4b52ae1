"""Read an arithmetic expression of whole numbers without evaluating code: the four operations and brackets, exactly."""

from __future__ import annotations

import ast
import operator
import re
from fractions import Fraction

_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_ALLOWED = re.compile(r"[0-9+\-*/() ]{1,64}")


def evaluate(expression: str) -> tuple[Fraction, list[int]] | None:
    """The exact value and the numbers used, in order; None for what is not an expression or divides by zero.

    Only binary operations count: a sign before a number, a power, or an underscore is not an expression here.
    """
    if not _ALLOWED.fullmatch(expression):
        return None
    numbers: list[int] = []

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
                return _OPERATIONS[type(op)](value(left), value(right))
            case ast.Constant(value=int(number)):
                numbers.append(number)
                return Fraction(number)
        raise ValueError(ast.dump(node))

    try:
        return value(ast.parse(expression.strip(), mode="eval").body), numbers
    except (SyntaxError, ValueError, ZeroDivisionError):
        return None
