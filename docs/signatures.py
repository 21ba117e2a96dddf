"""Shows the options as a reader wants them: with all defaults, and without how they are checked."""

from __future__ import annotations

from typing import Any

import griffe


class PlainSignatures(griffe.Extension):
    """Makes the signature of a dataclass of its fields, and leaves out what checks a value."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Forget the overloads of a dataclass: they are for type checkers."""
        decorators = [decorator.callable_path for decorator in cls.decorators]
        init = cls.members.get("__init__")
        is_function = isinstance(init, griffe.Function)
        if "dataclasses.dataclass" in decorators and is_function and init.overloads:
            cls.del_member("__init__")

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """``Annotated[float, check]`` is a ``float``."""
        annotation = attr.annotation
        if (
            isinstance(annotation, griffe.ExprSubscript)
            and annotation.canonical_path == "typing.Annotated"
            and isinstance(annotation.slice, griffe.ExprTuple)
        ):
            attr.annotation = annotation.slice.elements[0]
